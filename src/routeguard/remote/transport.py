"""Calls to the identity service: signed, bounded, without redirects, over one pool of connections."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import httpx2

from routeguard.client.messages import base_of
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.remote.breaker import SERVICE, Breaker
from routeguard.signatures.models import Message
from routeguard.signatures.profile import ClientSigner

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.remote.models import ClientTls, RemoteSettings

_CONNECTIONS: Final = 20
_AGAIN: Final = (httpx2.NetworkError, httpx2.RemoteProtocolError)
"""A kept connection was closed under us, or a replica went away: another try finds the next one."""
_TRIES: Final = 2
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_USER_AGENT: Final = "routeguard-remote"


class Answer(NamedTuple):
    """A response that came, whatever it says. Its body may tell of a person, so it does not show itself."""

    status: int
    body: bytes

    def __repr__(self) -> str:
        return f"Answer({self.status})"


class Transport:
    """One pool of connections to one service. Raises Unavailable for every call that was not answered properly."""

    def __init__(
        self, url: str, client_id: str, secret: str, *, clock: Clock, settings: RemoteSettings,
        tls: ClientTls | None = None,
    ) -> None:  # fmt: skip
        """Check what can be checked without I/O. Raises ConfigError with everything that is wrong."""
        findings: list[str] = []
        try:
            self.url = base_of(url, unsafe_http=settings.unsafe_http)
            if urlsplit(self.url).path:
                findings.append("the identity service's URL is an origin, without a path")
        except ConfigError as error:
            findings += error.findings
        try:
            self._signer = ClientSigner.of(client_id, secret)
        except ValueError as error:
            findings.append(str(error))
        try:
            self._tls = ssl.create_default_context(cafile=None if tls is None else tls.ca)
            if tls is not None:
                self._tls.load_cert_chain(tls.certificate, tls.key)
        except OSError as error:
            # Also what ssl says of a file that is no certificate.
            findings.append(f"the certificate or key for the identity service cannot be read: {error.strerror}")
        if findings:
            raise ConfigError(findings)
        self._clock = clock
        self._timeout = settings.timeout.total_seconds()
        self.breaker = Breaker(clock=clock)
        self._limits: dict[str, float | None] = httpx2.Timeout(self._timeout).as_dict()
        self._pool: httpx2.AsyncHTTPTransport | None = None

    async def start(self) -> None:
        """Open the pool. No connection is made yet."""
        limits = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        # The pool and no client around it: no redirects, no cookies, no proxy or password from the environment, and
        # no line in the log for every call. What is sent here are people's credentials.
        self._pool = httpx2.AsyncHTTPTransport(verify=self._tls, limits=limits, trust_env=False)

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    async def fetch(self, target: str, *, limit: int) -> Answer:
        """Make a GET that anybody may make. `limit` is the most bytes of an answer."""
        return await self._send("GET", target, b"", signed=False, limit=limit)

    async def call(self, method: str, target: str, body: bytes = b"", *, limit: int) -> Answer:
        """Make a signed call; a body is JSON. `target` is the encoded path and query."""
        return await self._send(method, target, body, signed=True, limit=limit)

    async def _send(self, method: str, target: str, body: bytes, *, signed: bool, limit: int) -> Answer:
        with self.breaker.call():
            try:
                # Each part of an answer has its time; all of them together have theirs.
                async with asyncio.timeout(2 * self._timeout):
                    answer = await self._tried(method, target, body, signed=signed, limit=limit)
            except (httpx2.TransportError, TimeoutError) as error:
                raise Unavailable(f"{SERVICE} ({type(error).__name__})") from error
            if answer.status >= _SERVER_ERROR:
                raise Unavailable(f"{SERVICE} ({answer.status})")
        if answer.status == _TOO_MANY:
            raise Unavailable(f"{SERVICE} (this client asks too often)")
        return answer

    async def _tried(self, method: str, target: str, body: bytes, *, signed: bool, limit: int) -> Answer:
        for left in reversed(range(_TRIES)):
            try:
                return await self._once(method, target, body, signed=signed, limit=limit)
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


async def _bounded(response: httpx2.Response, limit: int) -> bytes:
    """Return the content of an answer. Raises Unavailable for more of it than we take (attack JWT-12)."""
    content = bytearray()
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    async for part in response.stream:
        content += part
        if len(content) > limit:
            raise Unavailable(f"{SERVICE} (an answer was too long)")
    return bytes(content)
