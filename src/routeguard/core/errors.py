"""The error tree.

::

    RouteguardError
    ├─ ConfigError        raised only before the first request; carries every finding, not the first
    │  └─ ServiceMissing  a feature that another one needs is not there
    ├─ ProblemError       an expected refusal; carries a Problem and becomes its status
    ├─ Unavailable        a store or remote failed; 503 + Retry-After, never "not signed in"
    │  └─ Misconfigured   it answered, and refuses us until an operator changes something
    └─ GuardNotApplied    a programming error in the integration; 500

Saying no is a value (`routeguard.core.problem.Problem`); these are for what is broken, and for services that
must leave a transaction on the way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routeguard.core.problem import Problem


class RouteguardError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(RouteguardError):
    """Something that can be known before the first request is wrong.

    `findings` holds all of them, so that one start shows the whole list.
    """

    def __init__(self, findings: Sequence[str] | str) -> None:
        self.findings: tuple[str, ...] = (findings,) if isinstance(findings, str) else tuple(findings)
        super().__init__("\n".join(self.findings))


class ServiceMissing(ConfigError):
    """A service was asked for that no feature registered: its feature is missing, comes later, or failed itself."""


class ProblemError(RouteguardError):
    """An expected refusal raised by a service; carries the `Problem` the caller is told."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.type.code)


class Unavailable(RouteguardError):
    """A store or a remote service did not answer.

    "Cannot tell" must never read as "not signed in", nor as "allowed" (attack AZ-16): it is 503 with Retry-After.
    `what` names the dependency for the log; `retry_after` is in seconds.
    """

    def __init__(self, what: str, *, retry_after: int = 2) -> None:
        self.what = what
        self.retry_after = retry_after
        super().__init__(what)


class Misconfigured(Unavailable):
    """A store answered and refuses us: a wrong password, an unknown database, a missing right.

    For callers it is an outage like any other, 503. At start-up and for commands it is a `ConfigError` with `what` as
    its finding, for waiting does not mend it.
    """


class GuardNotApplied(RouteguardError):
    """A handler was about to answer, or did answer, without a decision. The caller gets 500."""
