"""Which credentials open an operation, as OpenAPI's security requirements: derived from its policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.policy import AnyOf, Deferred, Policy, Public

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Way = frozenset[str]
"""Names of schemes whose credentials are sent together. None of them: anonymous."""
_OPEN: Final[tuple[Way, ...]] = (frozenset(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The credentials that checks read, as names of security schemes."""

    schemes: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Security scheme objects by name."""
    required: Mapping[type[Any], tuple[str, ...]] = field(default_factory=dict)
    """Checks that ask for a credential, and the schemes of which any one is enough."""
    optional: Mapping[type[Any], tuple[str, ...]] = field(default_factory=dict)
    """Checks that read a credential if one is sent."""
    narrowing: tuple[type[Any], ...] = ()
    """Checks that refuse a caller whom no other check has identified."""
    exclusive: frozenset[str] = frozenset()
    """Schemes of which a request may carry only one: two credentials in its header fields are refused."""
    on_demand: frozenset[str] = frozenset()
    """Schemes that stand in the description only where an operation asks for them."""


@dataclass(frozen=True, slots=True)
class _Ways:
    """What opens a policy."""

    needs: tuple[Way, ...] | None
    """Any of them opens it. Empty: a credential that is not known. None: the handler decides."""
    reads: tuple[Way, ...] = ()
    """Credentials that are read if sent."""


def security_of(policy: Policy, known: Credentials) -> list[list[str]] | None:
    """Return the alternatives that open a policy, each the schemes it takes together; an empty one is anonymous.

    None where that is not known: the handler decides, or the application reads a credential of its own.
    """
    found = _all_of(policy.checks, known)
    if not found.needs:
        return None
    needs = _once(found.needs)
    anonymous = [way for way in needs if not way]
    named = _once([way for way in needs if way] + list(found.reads if anonymous else ()))
    return [sorted(way) for way in [*anonymous, *named]]


def _all_of(checks: Iterable[Any], known: Credentials) -> _Ways:
    """Return what opens `&` of these checks."""
    checks = list(checks)
    found = [ways for check in checks if (ways := _ways(check, known)) is not None]
    reads = tuple(way for ways in found for way in ways.reads)
    needs = [ways.needs for ways in found if ways.needs and ways.needs != _OPEN]
    if len(needs) == 1:
        return _Ways(needs[0], reads)
    if needs:
        return _Ways(_together(needs, known.exclusive), reads)
    if reads and any(isinstance(check, known.narrowing) for check in checks):
        # Such as `optional_session() & fresh(...)`: no caller passes the second without what the first may read.
        return _Ways(reads)
    if any(ways.needs is None for ways in found):
        return _Ways(None)
    return _Ways(() if not reads and any(ways.needs == () for ways in found) else _OPEN, reads)


def _ways(check: Any, known: Credentials) -> _Ways | None:
    """Return what opens a check, or None for one that is not about who calls."""
    kind = type(check)
    if isinstance(check, AnyOf):
        branches = [_all_of(branch.checks, known) for branch in check.branches]
        reads = tuple(way for branch in branches for way in branch.reads)
        needs = [branch.needs for branch in branches if branch.needs is not None]
        return _Ways(tuple(way for ways in needs for way in ways) if len(needs) == len(branches) else None, reads)
    if isinstance(check, Public):
        return _Ways(_OPEN)
    if isinstance(check, Deferred):
        return _Ways(None)
    if kind in known.required:
        return _Ways(tuple(frozenset({name}) for name in known.required[kind]))
    if kind in known.optional:
        return _Ways(_OPEN, tuple(frozenset({name}) for name in known.optional[kind]))
    return _Ways(()) if Policy((check,)).decides and not isinstance(check, known.narrowing) else None


def _together(needs: list[tuple[Way, ...]], exclusive: frozenset[str]) -> tuple[Way, ...]:
    """Return the ways to meet all of these needs, without those that contain another."""
    every = _once(frozenset().union(*ways) for ways in product(*needs))
    # Where no request can carry what is needed, the needs are still what they are: "none" would mean anonymous.
    sendable = [way for way in every if len(way & exclusive) <= 1] or every
    return tuple(way for way in sendable if not any(other < way for other in sendable))


def _once(ways: Iterable[Way]) -> list[Way]:
    return list(dict.fromkeys(ways))
