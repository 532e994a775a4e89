"""Values that handlers take as parameters: asking for one is requiring the policy that provides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from routeguard.core.policy import Stage

if TYPE_CHECKING:
    from routeguard.core.check import Check
    from routeguard.core.policy import Policy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Provided(Generic[T]):
    """A class of principals, and the policy by which a handler gets one: ``Provided(ApiKey, by=api_key())``."""

    kind: type[T]
    by: Policy

    def identifying(self) -> list[Check]:
        """Return the checks of `by` that find the principal."""
        return [check for check in self.by.every() if check.stage is Stage.IDENTITY]

    def held_by(self, policy: Policy) -> bool:
        """Return whether `policy` identifies a caller as `by` does, inside `|` too."""
        identifying = tuple(type(check) for check in self.identifying())
        return any(isinstance(check, identifying) for check in policy.every())
