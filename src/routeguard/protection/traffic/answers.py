"""Answers kept for those who ask the same: captured from the handler, shared in the process and through the store."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from routeguard.core.decision import Reply
from routeguard.core.exchange import Captured
from routeguard.core.policy import Deferred
from routeguard.protection.traffic.callers import user

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.policy import Policy
    from routeguard.core.request import RequestView
    from routeguard.core.services import Services

_STREAMS: Final = ("StreamingResponse", "EventSourceResponse", "FileResponse", "AsyncIter", "Iterator", "Generator")
_VOLATILE: Final = frozenset(
    {
        b"content-length",
        b"date",
        b"forwarded",
        b"idempotency-key",
        b"sec-fetch-user",
        b"traceparent",
        b"tracestate",
        b"via",
        b"x-forwarded-for",
        b"x-real-ip",
        b"x-request-id",
    }
)
"""Headers that may differ between two copies of one request."""
_CREDENTIAL: Final = re.compile(rb"auth|cookie|token|key|session|secret|password|credential|cert")
"""Names of headers that may say who is calling: ours, and whatever a handler reads by itself."""
_NO_CREDENTIAL: Final = frozenset({b"idempotency-key", b"x-csrf-token", b"x-xsrf-token", b"sec-websocket-key"})
_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What the handler answered: `body` is None when it answered, but too much to keep."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes | None = None
    cookies: tuple[tuple[bytes, bytes], ...] = ()

    def encode(self) -> bytes:
        """Return it as bytes, cookies left out: a stored cookie is a stored credential."""
        return msgspec.msgpack.encode((self.status, self.headers, self.body))

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """Read what `encode` wrote."""
        status, headers, body = _DECODER.decode(data)
        return cls(status, headers, body)

    def is_acceptable(self, request: RequestView) -> bool:
        """Return whether the content coding, if there is one, is one the request takes (RFC 9110 section 12.5.3)."""
        coding = next((value.strip().lower() for name, value in self.headers if name == b"content-encoding"), b"")
        if coding in {b"", b"identity"}:
            return True
        listed = dict(_coding(part) for part in request.headers.get(b"accept-encoding", b"").lower().split(b","))
        return listed.get(coding, listed.get(b"*", False))

    def reply(self, *extra: tuple[bytes, bytes]) -> Reply:
        """Return it for another caller, cookies left out."""
        return Reply(self.status, (*self.headers, *extra), self.body or b"")


def _coding(part: bytes) -> tuple[bytes, bool]:
    """Return one element of Accept-Encoding: the coding, and whether its weight is above nought."""
    name, _, weight = part.partition(b";")
    return name.strip(), _NO_WEIGHT.fullmatch(weight.strip()) is None


_NO_WEIGHT: Final = re.compile(rb"q\s*=\s*0(?:\.0*)?")
_DECODER: Final = msgspec.msgpack.Decoder(tuple[int, tuple[tuple[bytes, bytes], ...], bytes | None])


class Flight:
    """A request that a handler works on in this process, and the copies of it that wait for its answer.

    Not a `core.single_flight.SingleFlight`: the work is no call of ours but the first request itself, which ends with
    its caller; each copy waits for a time of its own; and None lets another of them try. Works on trio, too.
    """

    __slots__ = ("_finished", "answer")

    def __init__(self) -> None:
        self._finished = anyio.Event()
        self.answer: Answer | None = None

    def finish(self, answer: Answer | None) -> None:
        """Give the answer to all that wait. None: there is none, and another copy may try."""
        self.answer = answer
        self._finished.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the answer. Returns whether it came in time."""
        with anyio.move_on_after(seconds):
            await self._finished.wait()
        return self._finished.is_set()


def observe(exchange: Exchange, done: Callable[[Answer | None], Awaitable[None]]) -> None:
    """Call `done` once with the handler's answer, or None when it gave none (a crash, a server error)."""
    before = exchange.observer

    async def finish(captured: Captured | None) -> None:
        if before is not None:
            await before(captured)
        await done(_answer(exchange, captured))

    exchange.observer = finish


def _answer(exchange: Exchange, captured: Captured | None) -> Answer | None:
    if captured is None:
        # A response that began was not captured whole: it was too long. The work is done all the same.
        started = exchange.facts.get(Captured)
        return Answer(started[0]) if started is not None and started[0] < _SERVER_ERROR else None
    if captured.status >= _SERVER_ERROR:
        return None
    plain = tuple(pair for pair in captured.headers if pair[0] != b"set-cookie")
    # What signing out says to the browser is for every copy of the request.
    plain += tuple(pair for pair in exchange.effects if pair[0] == b"clear-site-data")
    cookies = tuple(pair for pair in (*captured.headers, *exchange.effects) if pair[0] == b"set-cookie")
    return Answer(captured.status, plain, captured.body, cookies)


def caller_key(services: Services) -> Callable[[Exchange], str]:
    """Return a function that names the caller: by principal, else by address and all credentials sent.

    A handler behind `public` may still answer by a cookie or a token that no check has looked at; two callers of one
    address must not get each other's answer (attack DDP-01).
    """
    subject = user.bind(services)

    def key_of(exchange: Exchange) -> str:
        known = subject(exchange)
        if exchange.principal is not None:
            return known
        request = exchange.request
        sent = [pair for pair in request.raw_headers if _CREDENTIAL.search(pair[0]) and pair[0] not in _NO_CREDENTIAL]
        tls = (request.scope.get("extensions") or {}).get("tls") or {}
        sent.append((b"", str(tls.get("client_cert_name") or "").encode()))
        # A guest who sends nothing of the kind is told apart from all who do: the digest is there either way.
        return f"{known}:{_digest([part for pair in sorted(sent) for part in pair]).hex()}"

    return key_of


def unkept(policy: Policy, handler: Any, kind: str, *, check: str) -> str | None:
    """Return why `check` cannot keep the answers of a handler under `policy`, or None.

    A stream has no end to keep; where the handler decides in its body, a kept answer would be given to those it never
    decided about (attacks DDP-01, DDP-07).
    """
    reasons: list[str] = []
    if (why := _streams(handler, kind)) is not None:
        reasons.append(f"{check}: {why}")
    if next(iter(policy.find(Deferred)), None) is not None:
        early = "a kept answer would be given before the handler decides who may have it"
        reasons.append(f"{check} cannot go with `deferred`: {early}")
    return "; ".join(reasons) or None


async def body_of(exchange: Exchange) -> bytes:
    """Return the whole body, bounded; the handler reads it again. Raises ProblemError 413."""
    return await exchange.read_body() if exchange.read_body is not None else b""


def request_digest(exchange: Exchange, body: bytes, *, headers: bool) -> bytes:
    """Return the digest of method, whole target, body and, with `headers`, every header that is part of the request.

    The target is scheme, host (as proxies tell it, too), path and query: tenants may share all but the host. With all
    headers (credentials and those an answer may vary by), only copies of one request are equal. Each part is preceded
    by its length, so that no two requests run together to the same text.
    """
    request = exchange.request
    scope = request.scope
    path = scope.get("raw_path") or request.path.encode()
    parts = [request.method.encode(), request.scheme.encode(), path, scope.get("query_string", b"")]
    if headers:
        for name, value in sorted(pair for pair in request.raw_headers if pair[0] not in _VOLATILE):
            parts += (name, value)
    else:
        parts += (request.headers.get(name, b"") for name in (b"host", b"x-forwarded-host", b"content-type"))
    parts.append(body)
    return _digest(parts)


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _streams(handler: Any, kind: str) -> str | None:
    """Return why the answers of a handler cannot be shared, or None (attack DDP-07)."""
    if kind == "websocket":
        return "a WebSocket has no answer that could be shared"
    with contextlib.suppress(ValueError):
        handler = inspect.unwrap(handler)
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        return "a generator's answer is a stream, which cannot be shared"
    annotations = getattr(handler, "__annotations__", {})
    returned = annotations.get("return", "")
    text = returned if isinstance(returned, str) else getattr(returned, "__name__", str(returned))
    return "a stream cannot be shared" if any(name in text for name in _STREAMS) else None
