"""The exchange of one request as a guard decides it: what its policies say, and what may leave. It knows no wire.

ASGI sends and receives around it in `asgi.py`. No decision, no response: `withheld` says so, on every wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.decision import ALLOW, Refuse
from routeguard.core.errors import ProblemError, Unavailable
from routeguard.core.exchange import Exchange
from routeguard.core.overrides import OverrideRaised
from routeguard.core.policy import Outcome, decision_of
from routeguard.core.problem import GUARD_NOT_APPLIED, INTERNAL_ERROR, NOT_FOUND, Problem, unavailable
from routeguard.protection.guard.caching import keep_private
from routeguard.protection.guard.framework import answered_by_framework, is_unsafe_slash_redirect
from routeguard.protection.guard.log import logger, record
from routeguard.protection.guard.overrides import explained
from routeguard.protection.guard.place import public_root, route_path
from routeguard.protection.guard.refusals import reply_to

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from routeguard.core.decision import Reply
    from routeguard.core.request import RequestView
    from routeguard.protection.guard.facts import Seen
    from routeguard.protection.guard.guard import Compiled, Guard
    from routeguard.protection.guard.layers import Layer

NO_DECISION: Final = GUARD_NOT_APPLIED(
    debug="no decision: no guarded handler answered, or one that is deferred has not awaited guard.require(...)"
)


class Decider(Exchange):
    """An exchange, and the guard that decides it. `entered` is the path that the server or a mount took away."""

    __slots__ = (
        "_stated_limit",
        "above",
        "current",
        "entered",
        "guard",
        "guarded",
        "layers",
        "outer",
        "own",
        "refusal",
        "replying",
        "status",
        "unsafe",
        "watched",
    )

    def __init__(self, guard: Guard, request: RequestView, entered: str = "", outer: Decider | None = None) -> None:
        # By name: `super()` would make an object for each request.
        Exchange.__init__(self, request, body_limit=guard.body_limit)
        self.guard = guard
        self.entered = entered
        self.outer = outer
        """That of a guarded application this one is mounted in; our decision is its decision."""
        self.defaults = guard.headers
        self.status: int | None = None
        """Of the answer, once it has started."""
        self.guarded = False
        """Whether any policy but `public` was asked: then no shared cache may keep the answer."""
        self.refusal: Problem | None = None
        self.replying = False
        """Whether what leaves now is our own answer in the handler's place."""
        self.current: object = None
        """The route being entered, so that a class calling its parent's `handle` is not asked twice."""
        self.layers: tuple[Layer, ...] = ()
        """What stands around the route being entered and carries a policy, outermost first."""
        self.above = False  # Whether one of them says who may call: enough for a handler that does not.
        self.watched: Seen | None = None
        """The facts that policies saw, where a middleware may have passed on others since."""
        self.unsafe = False  # Whether that made an unsafe method of a safe one.
        self.own: Compiled | None = None  # The policy of the current route, where that has middleware.
        self._stated_limit: int | None = None

    @property
    def root(self) -> str:
        """The path below which browsers find the application: the setting, else what the server or a mount says."""
        if not self.entered:
            return self.guard.root
        found = public_root(self.entered)
        self.guard.compare_root(found)
        return self.guard.root or found

    @property
    def route_path(self) -> str:
        """The path as the application's routes have it, without any prefix. Decides nothing."""
        return route_path(self.request.path, self.entered)

    # -- deciding -------------------------------------------------------------------------------------------------

    async def decide(self, compiled: Compiled, *, passed: Compiled | None = None) -> Outcome:
        """Run a compiled policy and record the decision. Whatever goes wrong is a refusal (attack AZ-16).

        `passed` has let the request through with other facts: what that counted is not counted a second time.
        """
        run = compiled.run if passed is None else compiled.beyond(passed, unsafe=self.unsafe)
        self.guarded = self.guarded or compiled.guarded
        if compiled.body_limit is not None:
            self._bound(compiled.body_limit)
        try:
            outcome = await run(self)
            decision = ALLOW if outcome is None else decision_of(outcome)
        except ProblemError as error:
            outcome = error.problem
            decision = Refuse(outcome)
        except (Unavailable, TimeoutError) as error:
            outcome = cannot_tell(error)
            decision = Refuse(outcome)
        except OverrideRaised as raised:
            raise raised.error from raised.error.__cause__
        except Exception:  # noqa: BLE001 - a policy that breaks in any way refuses
            logger.exception("a policy broke and the request is refused: %s", compiled.handler)
            outcome = INTERNAL_ERROR()
            decision = Refuse(outcome)
        if isinstance(outcome, Problem) and self.guard.mode == "observe":
            self.log(outcome, compiled.handler, "would be refused")
            outcome, decision = None, ALLOW
        # A mount above may have decided already; a handler that defers has still to decide for itself.
        if compiled.decides or outcome is not None:
            self.decision = None if outcome is None and compiled.deferred else decision
        outer = self.outer
        while outer is not None:
            outer.decision = outer.decision or self.decision
            outer.body_limit = self.body_limit
            outer = outer.outer
        return outcome

    def _bound(self, stated: int) -> None:
        """Set the body limit in bytes: the smallest that a policy on the way states."""
        self._stated_limit = stated if self._stated_limit is None else min(stated, self._stated_limit)
        self.body_limit = self._stated_limit

    # -- answering ------------------------------------------------------------------------------------------------

    def refused(self, problem: Problem, handler: str = "") -> Awaitable[Reply]:
        """Record and log a refusal, and return what makes the form of it that its caller can use."""
        self.refusal = problem
        instance = record(self, explained(self.guard, self, problem), handler, "refused")
        return reply_to(self, problem, instance, handler)

    def withheld(self, status: int, headers: list[tuple[bytes, bytes]]) -> Problem | None:
        """Return the refusal that leaves in the place of a handler's answer; None where that may go out.

        What was refused meanwhile wins over any answer: frameworks turn the interrupted reading of a body into 400 or
        500 of their own. A success without a decision is an error of ours (attacks AZ-11, AZ-13).
        """
        if self.refusal is not None or status >= 400 or not self.undecided:
            return self.refusal
        request, astray = self.request, False
        if self.current is None:
            if answered_by_framework(request, status, headers, entered=self.entered, root=self.root):
                return None
            astray = is_unsafe_slash_redirect(request, status)
        if self.unapplied():
            return None
        return NOT_FOUND() if astray else NO_DECISION

    def finish(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Append effects, then the defaults whose names are still free. Nothing is rebuilt or doubled (HDR-02)."""
        effects = self.effects
        # A cookie of ours is one caller's, on a public route too: no shared cache hands it to the next (SES-18).
        if self.guarded or (effects and any(name == b"set-cookie" for name, _ in effects)):
            keep_private(headers)
        headers += effects
        defaults = self.defaults
        if defaults:
            present = dict(headers)
            if defaults is self.guard.headers and present.get(b"content-type", b"").startswith(b"text/html"):
                defaults = self.guard.page_headers
            headers += [pair for pair in defaults if pair[0] not in present]
        return headers

    @property
    def undecided(self) -> bool:
        """Whether no policy has let this caller in. A handler that swallows a refusal of `require` is not let in."""
        return self.decision is None or isinstance(self.decision, Refuse)

    def unapplied(self) -> bool:
        """Whether the missing decision is only noted."""
        if self.guard.mode != "observe":
            return False
        self.log(NO_DECISION, "", "would be refused")
        self.decision = ALLOW
        return True

    async def release(self) -> None:
        """Tell an observer that no whole response came, so that its followers are freed (DDP crash case)."""
        if self.observer is not None:
            observer, self.observer = self.observer, None
            await observer(None)

    async def end(self) -> None:
        """Tell what waits for it how the request was answered."""
        if self.ended is not None:
            ended, self.ended = self.ended, None
            await ended(self.status)

    def hold_to(self, problem: Problem | None) -> None:
        """Refuse what was found before any policy. Raises ProblemError, or notes it where refusals are only noted."""
        if problem is None:
            return
        if self.guard.mode != "observe":
            raise problem.error()
        self.log(problem, "", "would be refused")

    def log(self, problem: Problem, handler: str, verb: str) -> str:
        """Write one line per refusal, cause included, and return the request's id."""
        return record(self, explained(self.guard, self, problem), handler, verb)


def cannot_tell(error: Unavailable | TimeoutError) -> Problem:
    """Return 503: what could not be asked has said neither yes nor no."""
    return unavailable(error.what, error.retry_after) if isinstance(error, Unavailable) else unavailable("timeout")
