"""Keeps a response as the handler sent it, for checks that give the same answer again (idempotency, de-duplication)."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from routeguard.core.decision import ALLOW
from routeguard.core.exchange import Captured

if TYPE_CHECKING:
    from routeguard.protection.guard.asgi import Message, Send
    from routeguard.protection.guard.decider import Decider

LIMIT: Final = 1024 * 1024
"""Bytes of a body that are kept, content coding removed."""
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Capture:
    """The `send` of one handler. It stands inside the application's middleware.

    Middleware around the handler may compress for this caller, or add headers for it. What is kept is what the handler
    said, and a later answer passes through the same middleware again: a caller that takes no gzip gets none.
    """

    __slots__ = ("_body", "_connection", "_head", "_send")

    def __init__(self, connection: Decider, send: Send) -> None:
        self._connection = connection
        self._send = send
        self._body: bytearray | None = None
        self._head: tuple[int, tuple[tuple[bytes, bytes], ...]] = (0, ())

    async def __call__(self, message: Message) -> None:
        """Keep a message, then pass it on. The observer is told once the whole response has been passed on."""
        kind, whole = message["type"], False
        if kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.body":
            # Before it is passed on: middleware changes the message itself.
            whole = self._add(message)
        await self._send(message)
        if whole:
            await self._tell()

    def _start(self, message: Message) -> None:
        connection = self._connection
        # A refusal by a policy further in is no answer of the handler, nor is what a framework makes of a body over
        # the limit, in whose place the edge answers 413.
        refused = connection.decision is not ALLOW if connection.replying else connection.refusal is not None
        if connection.observer is None or refused:
            return
        self._body = bytearray()
        self._head = connection.facts[Captured] = (message["status"], tuple(message.get("headers", ())))

    def _add(self, message: Message) -> bool:
        """Keep a part of the body. Returns whether it was the last, or the first that is too much."""
        if self._body is None:
            return False
        body = self._body
        body += message.get("body", b"")
        return len(body) > LIMIT or not message.get("more_body", False)

    async def _tell(self) -> None:
        body, observer = self._body, self._connection.observer
        self._body = self._connection.observer = None
        if body is None or observer is None:
            return
        status, headers = self._head
        await observer(_whole(status, headers, bytes(body)) if len(body) <= LIMIT else None)


def _whole(status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> Captured | None:
    """Return the response without a content coding we can remove, or None when it is too long without.

    A handler or a route's own middleware may compress. Another caller may not take that coding.
    """
    coding = next((value.strip().lower() for name, value in headers if name.lower() == b"content-encoding"), None)
    if coding not in _WINDOW_BITS or not body:
        return Captured(status, headers, body)
    try:
        reader = zlib.decompressobj(_WINDOW_BITS[coding])
        # Bounded: a few bytes may stand for gigabytes.
        plain = reader.decompress(body, LIMIT + 1)
    except zlib.error:
        return Captured(status, headers, body)
    if len(plain) > LIMIT:
        return None
    if not reader.eof or reader.unused_data:
        return Captured(status, headers, body)
    kept = [pair for pair in headers if pair[0].lower() not in {b"content-encoding", b"content-length", b"etag"}]
    return Captured(status, (*kept, (b"content-length", b"%d" % len(plain))), plain)
