"""Calls to the identity service: signed, bounded, without redirects, over one pool of connections."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from routeguard.client.messages import base_of
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.foundation.signatures.models import Message
from routeguard.foundation.signatures.profile import ClientSigner
from routeguard.remote.breaker import SERVICE, Away, Breaker

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.remote.models import ClientTls, RemoteSettings

T = TypeVar("T")

_CONNECTIONS: Final = 20
_AGAIN: Final = (httpx2.NetworkError, httpx2.RemoteProtocolError)
"""A kept connection was closed under us, or a replica went away: another try finds the next one."""
_TRIES: Final = 2
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_AWAY: Final = frozenset({502, 503, 504})
_USER_AGENT: Final = "routeguard-remote"
_CLIENT_ID: Final = re.compile(r"cli_[A-Za-z0-9_-]{1,100}", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}", re.ASCII)
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What msgspec says of bytes that are no answer of ours: also UnicodeDecodeError, and too many levels."""


class Answer(NamedTuple):
    """A response that came, whatever it says. Its body may tell of a person, so it does not show itself."""

    status: int
    body: bytes

    def __repr__(self) -> str:
        return f"Answer({self.status})"


class _Call(NamedTuple):
    method: str
    target: str
    body: bytes
    signed: bool


class Transport:
    """One pool of connections to one service. Raises Unavailable for every call that was not answered properly."""

    def __init__(
        self,
        url: str,
        client_id: str,
        secret: str,
        *,
        clock: Clock,
        settings: RemoteSettings,
        tls: ClientTls | None = None,
    ) -> None:
        """Check what can be checked without I/O. Raises ConfigError with everything that is wrong."""
        self.url, findings = _origin(url, unsafe_http=settings.unsafe_http)
        if _CLIENT_ID.fullmatch(client_id) is None:
            findings.append("the client id is not one that `routeguard client create` printed: cli_ and letters")
        try:
            self._signer = ClientSigner.of(client_id, secret)
        except ValueError as error:
            findings.append(str(error))
        try:
            self._tls = ssl.create_default_context(cafile=None if tls is None else tls.ca)
            if tls is not None:
                self._tls.load_cert_chain(tls.certificate, tls.key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            # Also what ssl says of a file that is no certificate.
            said = (error.strerror if isinstance(error, OSError) else None) or str(error)
            findings.append(f"the certificate or key for the identity service cannot be read: {said}")
        if findings:
            raise ConfigError(findings)
        self._clock = clock
        self._timeout = settings.timeout.total_seconds()
        self.breaker = Breaker(clock=clock)
        self.feed_breaker = Breaker(clock=clock)
        """The feed's own: a feed that is not answered in time says nothing of what people wait for."""
        self._limits: dict[str, float | None] = httpx2.Timeout(self._timeout).as_dict()
        self._pool: httpx2.AsyncHTTPTransport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Open the pool. No connection is made yet."""
        self._loop = asyncio.get_running_loop()
        limits = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        # The pool and no client around it: no redirects, no cookies, no proxy or password from the environment, and
        # no line in the log for every call. What is sent here are people's credentials.
        self._pool = httpx2.AsyncHTTPTransport(verify=self._tls, limits=limits, trust_env=False)

    async def close(self) -> None:
        """Close all connections."""
        pool, self._pool = self._pool, None
        # Connections of an event loop that has ended cannot be closed from another; they end with the pool.
        if pool is not None and self._loop is asyncio.get_running_loop():
            await pool.aclose()

    async def fetch(self, target: str, *, limit: int) -> Answer:
        """Make a GET that anybody may make. `limit` is the most bytes of an answer."""
        return await self._send(_Call("GET", target, b"", signed=False), limit, self.breaker)

    async def call(self, method: str, target: str, body: bytes = b"", *, limit: int) -> Answer:
        """Make a signed call; a body is JSON. `target` is the encoded path and query."""
        return await self._send(_Call(method, target, body, signed=True), limit, self.breaker)

    async def call_feed(self, target: str, *, limit: int) -> Answer:
        """Make a signed GET whose failures count for the feed alone."""
        return await self._send(_Call("GET", target, b"", signed=True), limit, self.feed_breaker)

    async def _send(self, call: _Call, limit: int, breaker: Breaker) -> Answer:
        with breaker.call():
            try:
                # Each part of an answer has its time; all of them together have theirs.
                async with asyncio.timeout(2 * self._timeout):
                    answer = await self._tried(call, limit)
            except (httpx2.TransportError, TimeoutError) as error:
                raise Away(f"{SERVICE} ({type(error).__name__})") from error
            if answer.status in _AWAY:
                raise Away(f"{SERVICE} ({answer.status})")
            if answer.status >= _SERVER_ERROR:
                raise Unavailable(f"{SERVICE} ({answer.status})")
        if answer.status == _TOO_MANY:
            raise Unavailable(f"{SERVICE} (this client asks too often)")
        return answer

    async def _tried(self, call: _Call, limit: int) -> Answer:
        for left in reversed(range(_TRIES)):
            try:
                return await self._once(call.method, call.target, call.body, signed=call.signed, limit=limit)
            except _AGAIN:
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _once(self, method: str, target: str, body: bytes, *, signed: bool, limit: int) -> Answer:
        if self._pool is None:
            raise Unavailable(f"{SERVICE} (not started)")
        # No compression: a small answer must not become a large one.
        headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": _USER_AGENT}
        if body:
            headers["content-type"] = "application/json"
        url = self.url + target
        if signed:
            # Anew for every try: a nonce counts once (attack WH-03).
            message = Message.of(method, url, headers=headers, body=body)
            headers |= self._signer.headers(message, now=self._clock.time())
        request = httpx2.Request(
            method, url, headers=headers, content=body or None, extensions={"timeout": self._limits}
        )
        response = await self._pool.handle_async_request(request)
        try:
            return Answer(response.status_code, await _bounded(response, limit))
        finally:
            await response.aclose()


def decode(decoder: msgspec.json.Decoder[T], answer: Answer, what: str) -> T:
    """Return what an answer says. Raises Unavailable for bytes that do not say it, whatever is wrong with them."""
    try:
        return decoder.decode(answer.body)
    except _UNREADABLE as error:
        raise Unavailable(f"{SERVICE} ({what} cannot be read)") from error


def _origin(url: str, *, unsafe_http: bool) -> tuple[str, list[str]]:
    """Return the service's origin, and what is wrong with it."""
    try:
        base = base_of(url, unsafe_http=unsafe_http)
        parts = urlsplit(base)
        # Looked at here, because nothing else looks at a host.
        if _HOST.fullmatch(parts.hostname or "") is None:
            return "", ["the identity service's URL has no proper host"]
    except ConfigError as error:
        return "", list(error.findings)
    except ValueError:
        return "", ["the identity service's URL cannot be read"]
    return base, ["the identity service's URL is an origin, without a path"] if parts.path else []


def _no_passphrase() -> NoReturn:
    """Refuse to wait for input: an app starts by itself."""
    raise ValueError("the key is locked by a passphrase")


async def _bounded(response: httpx2.Response, limit: int) -> bytes:
    """Return the content of an answer. Raises Unavailable for more of it than we take (attack JWT-12)."""
    content = bytearray()
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    async for part in response.stream:
        content += part
        if len(content) > limit:
            raise Unavailable(f"{SERVICE} (an answer was too long)")
    return bytes(content)
