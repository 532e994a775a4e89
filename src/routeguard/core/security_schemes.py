"""Which credentials the checks read, as OpenAPI's security schemes: said by the features that bring them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityScheme:
    """One kind of credential."""

    name: str
    description: Mapping[str, Any]
    """The security scheme object (OpenAPI 3.1 section 4.8.27)."""
    required_by: tuple[type[Any], ...] = ()
    """The checks that ask for it; where a check has several schemes, any one of them is enough."""
    read_by: tuple[type[Any], ...] = ()
    """The checks that read it if it is sent."""
    exclusive: bool = False
    """Whether a request with another exclusive one beside it is refused: two credentials in its header fields."""
    on_demand: bool = False
    """Whether it stands in a description only where an operation asks for it."""


class SecuritySchemes:
    """The schemes of an application, in the order of its features. Complete before the first request."""

    __slots__ = ("_schemes", "narrowing")

    def __init__(self) -> None:
        self._schemes: dict[str, SecurityScheme] = {}
        self.narrowing: tuple[type[Any], ...] = ()
        """Checks that refuse a caller whom no other check has identified."""

    def add(self, scheme: SecurityScheme) -> None:
        """Add a scheme; of two by one name the first stays, for two features may read the same credential."""
        self._schemes.setdefault(scheme.name, scheme)

    def __iter__(self) -> Iterator[SecurityScheme]:
        """Yield the schemes."""
        return iter(self._schemes.values())
