"""One request and its response over ASGI: the decider together with the two ends of its wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from routeguard.core.decision import ALLOW, Reply
from routeguard.core.errors import GuardNotApplied
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.problem import CONTENT_TOO_LARGE, MALFORMED_REQUEST, Problem
from routeguard.core.request import RequestView
from routeguard.protection.guard.decider import NO_DECISION, Decider
from routeguard.protection.guard.denial import let_server_close
from routeguard.protection.guard.subprotocols import hide_credentials, subprotocol, without_credentials
from routeguard.protection.guard.transport import must_close
from routeguard.protection.guard.watch import StreamEnded, is_event_stream, watch_principal, watch_stream

if TYPE_CHECKING:
    from routeguard.protection.guard.guard import Guard

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyTooLarge(Exception):
    """Ends the reading of a body over the limit. The 413 is already recorded, and wins over any other answer."""


class Connection(Decider):
    """A decider together with the two ends of its wire."""

    __slots__ = (
        "_body",
        "_ended",
        "_over",
        "_receive",
        "_received",
        "accepted",
        "is_event_stream",
        "started",
        "stream_ended",
        "watcher",
        "write",
    )

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        outer = scope.get(SCOPE_KEY)
        # The path now, because a mount inside the application changes it in the same scope.
        Decider.__init__(
            self,
            guard,
            RequestView(scope),
            scope.get("root_path", ""),
            outer if isinstance(outer, Connection) else None,
        )
        self.read_body = self._read_body
        self.started = False
        self.stream_ended = False
        """Whether a stream was ended with its principal."""
        self.is_event_stream = False
        self.accepted = False
        """Whether a WebSocket is open, so that a later refusal has to close it."""
        if self.request.kind == "websocket":
            hide_credentials(scope)
        self._receive = receive
        self.write = send
        """Sends to the server, past every check: for the guard itself."""
        self._received = 0
        self._ended = self._over = False
        self.watcher: asyncio.Task[None] | None = None
        self._body: list[Message] | None = None

    # -- the request's side ---------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Hand on the next message, counting body bytes: declared, chunked and lying lengths alike (BODY-01)."""
        if self._body:
            return self._body.pop(0)
        if self._over:
            # A handler that asks again after the refusal must not read on: the body may have no end (attack BODY-01).
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
            message["headers"] = self.finish(list(message.get("headers", ())))
        elif kind == "websocket.accept":
            if self.undecided and not self.unapplied():
                await self.refuse(NO_DECISION)
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
            if problem is None and self.decision is not ALLOW and message["status"] < 400:
                problem = self.withheld(message["status"], headers)
            if problem is not None:
                # What lets a page of another origin read the answer stays.
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
            await self.write({**message, "headers": self.finish(headers)})
        finally:
            if self.departed is not None:
                self.departed()

    # -- answering in the handler's place -------------------------------------------------------------------------

    async def answer(self, outcome: Problem | Reply, handler: str = "", send: Send | None = None) -> None:
        """Send a refusal or a reply; through `send`, so that the application's middleware sees it like any answer."""
        if isinstance(outcome, Problem):
            await self.refuse(outcome, handler, send)
        else:
            await self._emit(outcome, send)

    async def refuse(self, problem: Problem, handler: str = "", send: Send | None = None) -> None:
        """Send a problem in the form its caller can use, or as a refused handshake."""
        await self._emit(await self.refused(problem, handler), send)

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
