"""What a sign-in method has found proven, what may stand between that and a session, and what comes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from routeguard.identity.sessions.problems import step_up_required

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from routeguard.core.errors import ProblemError
    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem
    from routeguard.foundation.db.database import Transaction

U = TypeVar("U")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a sign-in method accepted as proof of who is signing in.

    `amr` are the methods of proof (RFC 8176: pwd, otp, hwk), `aal` is the assurance level reached with it. With
    `lasting` the session's cookies outlive the browser. `uniform` says that the answer must not tell an account that
    may not sign in from one that does not exist: False only for a proof that reaches the account's owner alone.
    """

    user_id: str
    amr: tuple[str, ...]
    aal: int = 1
    lasting: bool = True
    uniform: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Unproven:
    """The proof does not count after all: its `cause` is for the logs, `user_id` whose proof it would have been."""

    cause: str
    user_id: str | None = None


ProofCheck: TypeAlias = "Callable[[Transaction], Awaitable[Proof | Unproven]]"
"""Checks or consumes a proof in the transaction that starts the session."""


@dataclass(frozen=True, slots=True)
class ProvenUser(Generic[U]):
    """A user with all that was proven in this sign-in so far, who is not signed in yet."""

    user: U
    amr: tuple[str, ...]
    aal: int
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Wanted:
    """The answer "not yet" of a step: any of `methods` has to be proven too. The names are of the step's choice."""

    methods: tuple[str, ...]


class SignInStep(Protocol):
    """What may stand between proof and session: a verified address, terms to accept.

    Returns None to let the user pass, or the Problem that refuses. Runs in the transaction of the sign-in, which
    commits either way, and once more whenever a sign-in is resumed.
    """

    async def __call__(self, tx: Transaction, proven: ProvenUser[Any], /) -> Problem | None:
        """Look at what was proven."""
        ...


class WaitingStep(ABC):
    """A step that may also answer `Wanted`, such as one that asks for a second factor.

    It is asked again when the sign-in is resumed, with all that is proven by then. Its author also writes how
    the caller is told and the route that resumes: a step without `ask` cannot be made.
    """

    @abstractmethod
    async def __call__(self, tx: Transaction, proven: ProvenUser[Any], /) -> Problem | Wanted | None:
        """Look at what was proven."""

    @abstractmethod
    def ask(self, pending: Pending, exchange: Exchange) -> Problem:
        """Return what the caller is told: a Problem with the handle in it, or with the handle in a cookie beside it.

        Called once the handle is stored.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A sign-in that waits for more: `missing` are the methods of which one will do.

    `handle` takes the place of what was proven: it is good once, with `SignIn.resume`, for `expires_in` seconds.
    """

    missing: tuple[str, ...]
    handle: str = field(repr=False)
    expires_in: int
    problem: Problem = field(default_factory=step_up_required)

    def error(self) -> ProblemError:
        """Return the exception that answers with what the step says."""
        return self.problem.error()


@dataclass(frozen=True, slots=True)
class Refused:
    """A sign-in that was refused; `problem` is all that may be told, `cause` is for the logs."""

    problem: Problem
    cause: str

    def error(self) -> ProblemError:
        """Return the exception that answers with the refusal."""
        return self.problem.error()
