"""One request and its response on the wire: the exchange together with the two ends it is read from and written to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.decision import ALLOW, Refuse, Reply
from routeguard.core.errors import GuardNotApplied, ProblemError, Unavailable
from routeguard.core.exchange import SCOPE_KEY, Exchange
from routeguard.core.overrides import OverrideRaised
from routeguard.core.policy import Outcome, decision_of
from routeguard.core.problem import (
    CONTENT_TOO_LARGE,
    GUARD_NOT_APPLIED,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    NOT_FOUND,
    Problem,
    unavailable,
)
from routeguard.core.request import RequestView
from routeguard.guard.denial import let_server_close
from routeguard.guard.finish import finish
from routeguard.guard.framework import answered_by_framework, leads_astray
from routeguard.guard.log import logger, record
from routeguard.guard.overrides import explained
from routeguard.guard.place import public_root, route_path
from routeguard.guard.refusals import reply_to
from routeguard.guard.subprotocols import hide_credentials, subprotocol, without_credentials
from routeguard.guard.transport import must_close
from routeguard.guard.watch import StreamEnded, is_event_stream, watch_principal, watch_stream

if TYPE_CHECKING:
    from routeguard.guard.facts import Seen
    from routeguard.guard.guard import Compiled, Guard
    from routeguard.guard.layers import Layer

_NO_DECISION: Final = GUARD_NOT_APPLIED(
    debug="no decision: no guarded handler answered, or one that is deferred has not awaited guard.require(...)"
)
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyTooLarge(Exception):
    """Ends the reading of a body over the limit. The 413 is already recorded, and wins over any other answer."""


class Connection(Exchange):
    """An exchange together with the two ends of its wire."""

    __slots__ = (
        "_body", "_ended", "_over", "_receive", "_received", "_stated_limit", "above", "accepted", "current", "entered",
        "guard", "guarded", "is_event_stream", "layers", "outer", "own", "refusal", "replying", "started", "status",
        "stream_ended", "unsafe", "watched", "watcher", "write",
    )  # fmt: skip

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(RequestView(scope), body_limit=guard.body_limit)
        self.guard = guard
        # Now, because a mount inside the application changes it in the same scope.
        self.entered: str = scope.get("root_path", "")
        self.read_body = self._read_body
        self.defaults = guard.headers
        self.started = False
        self.stream_ended = False
        """Whether a stream was ended with its principal."""
        self.is_event_stream = False
        self.status: int | None = None
        """Of the answer, once it has started."""
        self.accepted = False
        """Whether a WebSocket is open, so that a later refusal has to close it."""
        self.guarded = False
        """Whether any policy but `public` was asked: then no shared cache may keep the answer."""
        self.refusal: Problem | None = None
        self.replying = False
        """Whether what comes down the wire now is our own answer in the handler's place."""
        self.current: object = None
        """The route being entered, so that a class calling its parent's `handle` is not asked twice."""
        self.layers: tuple[Layer, ...] = ()
        """What stands around the route being entered and carries a policy, outermost first."""
        self.above = False  # Whether one of them says who may call: enough for a handler that does not.
        self.watched: Seen | None = None
        """The facts that policies saw, where a middleware may have passed on others since."""
        self.unsafe = False  # Whether that made an unsafe method of a safe one.
        self.own: Compiled | None = None  # The policy of the current route, where that has middleware.
        outer = scope.get(SCOPE_KEY)
        self.outer = outer if isinstance(outer, Connection) else None
        """The connection of a guarded application this one is mounted in; our decision is its decision."""
        if self.request.kind == "websocket":
            hide_credentials(scope)
        self._receive = receive
        self.write = send
        """Sends to the server, past every check: for the guard itself."""
        self._received = 0
        self._ended = self._over = False
        self.watcher: asyncio.Task[None] | None = None
        self._stated_limit: int | None = None
        self._body: list[Message] | None = None

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

    # -- the request's side ---------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Hand on the next message, counting body bytes: declared, chunked and lying lengths alike (BODY-01)."""
        if self._body:
            return self._body.pop(0)
        if self._over:
            # Whoever asks again after the refusal must not read on: the body may have no end (attack BODY-01).
            raise BodyTooLarge
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._ended = not message.get("more_body", False)
            if self.body_limit is not None and self._received > self.body_limit:
                self._over_limit()
        elif message["type"] == "websocket.disconnect":
            self.accepted = False
        return message

    def _over_limit(self) -> None:
        if self.guard.mode == "observe":
            self.body_limit = None
            self.log(CONTENT_TOO_LARGE(), "", "would be refused")
            return
        self.refusal = CONTENT_TOO_LARGE()
        self._over = True
        raise BodyTooLarge

    async def _read_body(self) -> bytes:
        """Read the whole body, bounded, and keep it for the handler: the same bytes, bit for bit (BODY-21).

        Raises ProblemError 413 past the limit, and 400 when the client left before the end: half a body is no body.
        """
        if self._ended and not self._body:
            raise GuardNotApplied("a policy wanted the body after the handler had read it")
        messages: list[Message] = []
        while True:
            try:
                message = await self.receive()
            except BodyTooLarge:
                raise CONTENT_TOO_LARGE().error() from None
            if message["type"] != "http.request":
                raise MALFORMED_REQUEST(debug="the client left before its body ended").error()
            messages.append(message)
            if not message.get("more_body", False):
                break
        self._body = messages
        return b"".join(message.get("body", b"") for message in messages)

    # -- the response's side --------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Let a response out, with effects, if it may leave."""
        kind = message["type"]
        if kind == "http.response.start":
            await self._start(message)
        elif self.refusal is not None and not self.replying:
            return  # The refusal has been sent in its place; the rest of the handler's answer is dropped.
        elif kind == "http.response.body" and not self.stream_ended and not message.get("more_body", False):
            await self.write(message)
        elif kind.startswith("websocket."):
            await self._send_websocket(kind, message)
        else:
            await self._send_part(message)

    async def _send_part(self, message: Message) -> None:
        """Send what is not the end of a response."""
        if self.stream_ended:
            # As a server does whose client has gone: frameworks then end the handler (ASGI HTTP specification 2.4).
            raise StreamEnded("the principal of this stream was signed out or revoked")
        if message.get("more_body", False):
            watch_stream(self)
        await self.write(message)

    async def _send_websocket(self, kind: str, message: Message) -> None:
        if kind.startswith("websocket.http.response.") and not self._can_deny:
            # A framework's own denial; a server without the extension would break on it (attack WS-08).
            if kind == "websocket.http.response.start":
                await self.close(1008)
            return
        if kind == "websocket.http.response.start":
            message["headers"] = finish(self, list(message.get("headers", ())))
        elif kind == "websocket.accept":
            if self._undecided and not self._unapplied():
                await self.refuse(_NO_DECISION)
                return
            message["subprotocol"] = subprotocol(self.request.scope, message.get("subprotocol"))
            message["headers"] = [*without_credentials(message.get("headers", ())), *self.effects]
            self.accepted = True
            self.watch()
        elif kind == "websocket.close":
            self.accepted = False
        self.started = True
        await self.write(message)
        if kind == "websocket.http.response.body" and not message.get("more_body", False):
            await let_server_close()

    @property
    def _can_deny(self) -> bool:
        return "websocket.http.response" in (self.request.scope.get("extensions") or {})

    async def close(self, code: int) -> None:
        """Close a WebSocket."""
        self.started = True
        self.accepted = False
        await self.write({"type": "websocket.close", "code": code, "reason": ""})

    def watch(self) -> None:
        """Close the socket when its principal ends: no channel outlives a session (attack WS-05).

        Once it is accepted, or once its handler has required a principal.
        """
        if self.request.kind == "websocket":
            watch_principal(self)

    def leave(self) -> None:
        """Give up what the connection holds, once its application has returned."""
        # Scope and connection hold each other; left so, every request would wait for the garbage collector.
        self.read_body = None
        if self.watcher is not None:
            self.watcher.cancel()
        if self.departed is not None and not self.started:
            self.departed()  # Nothing will leave any more: its client has gone.

    async def _start(self, message: Message) -> None:
        headers = list(message.get("headers", ()))
        if not self.replying:
            problem = self.refusal
            undecided = problem is None and self.decision is not ALLOW and message["status"] < 400 and self._undecided
            if undecided and not self._may_leave(message["status"], headers):
                astray = self.current is None and leads_astray(self.request, message["status"])
                problem = NOT_FOUND() if astray else _NO_DECISION
            if problem is not None:
                # 413 wins too: frameworks turn the interrupted read into 400 or 500 of their own. What lets a page
                # of another origin read the answer stays.
                self.effects += [pair for pair in headers if pair[0].startswith((b"access-control-", b"vary"))]
                await self.refuse(problem)
                return
        self.started = True
        self.status = message["status"]
        if self.principal is not None and not self.replying:
            self.is_event_stream = is_event_stream(headers)
            if self.is_event_stream:
                watch_stream(self)  # From its start: there may be no first event for a long time.
        try:
            await self.write({**message, "headers": finish(self, headers)})
        finally:
            if self.departed is not None:
                self.departed()

    @property
    def _undecided(self) -> bool:
        """Whether nobody has let this caller in. A handler that swallows a refusal of `require` is not let in."""
        return self.decision is None or isinstance(self.decision, Refuse)

    def _may_leave(self, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether an answer that nobody decided about may go out (attacks AZ-11, AZ-13)."""
        if self.current is None and answered_by_framework(
            self.request, status, headers, entered=self.entered, root=self.root
        ):
            return True
        return self._unapplied()

    def _unapplied(self) -> bool:
        """Whether the missing decision is only noted."""
        if self.guard.mode != "observe":
            return False
        self.log(_NO_DECISION, "", "would be refused")
        self.decision = ALLOW
        return True

    async def release(self) -> None:
        """Tell an observer that no whole response came, so that its followers are freed (DDP crash case)."""
        if self.observer is not None:
            observer, self.observer = self.observer, None
            await observer(None)

    async def end(self) -> None:
        """Tell whoever waits for it how the request was answered."""
        if self.ended is not None:
            ended, self.ended = self.ended, None
            await ended(self.status)

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
            decision = decision_of(outcome)
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

    # -- answering in the handler's place -------------------------------------------------------------------------

    async def answer(self, outcome: Problem | Reply, handler: str = "", send: Send | None = None) -> None:
        """Send a refusal or a reply; through `send`, so that the application's middleware sees it like any answer."""
        if isinstance(outcome, Problem):
            await self.refuse(outcome, handler, send)
        else:
            await self._emit(outcome, send)

    async def refuse(self, problem: Problem, handler: str = "", send: Send | None = None) -> None:
        """Send a problem in the form its caller can use, or as a refused handshake."""
        self.refusal = problem
        instance = self.log(problem, handler, "refused")
        await self._emit(await reply_to(self, problem, instance, handler), send)

    async def _emit(self, reply: Reply, send: Send | None) -> None:
        """Write a whole answer; once a response has started there is nothing left to say (attack HTTP-16)."""
        if self.started:
            if self.accepted:
                await self.close(1008 if reply.status < 500 else 1011)
            return
        self.replying = True
        send = send or self.send
        prefix = "http" if self.request.kind == "http" else "websocket.http"
        headers = list(reply.headers)
        if must_close(self.request, ended=self._ended):
            headers.append((b"connection", b"close"))
        await send({"type": f"{prefix}.response.start", "status": reply.status, "headers": headers})
        await send({"type": f"{prefix}.response.body", "body": reply.body})
        self.replying = False

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
    """Return 503: who could not be asked did not say yes, nor did he say no."""
    return unavailable(error.what, error.retry_after) if isinstance(error, Unavailable) else unavailable("timeout")
