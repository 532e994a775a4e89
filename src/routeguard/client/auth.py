"""How calls say who makes them: by cookies, access tokens, an API key, or a signature."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from routeguard.client.errors import ClientProblem, ServiceUnavailable
from routeguard.client.messages import call, content, is_about
from routeguard.client.models import Await, Finish, Flight, Send, TokenPair
from routeguard.core.clock import Clock, SystemClock

if TYPE_CHECKING:
    from routeguard.client.models import Answer, Call, Flow

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NEAR: Final = 30.0
_UNAUTHORIZED: Final = 401


class Auth(Protocol):
    """Adds a credential to calls. Its flows do no I/O, so that one text serves both clients."""

    def send(self, base: str, request: Call) -> Flow[Answer]:
        """Make one call to the service at `base`."""
        ...

    def forget(self) -> None:
        """Drop what belongs to a session that has begun or ended."""
        ...


def with_header(request: Call, **headers: str) -> Call:
    """Return a call with more fields; an underscore in a name stands for a hyphen."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(request, headers={**request.headers, **more})


class CookieAuth:
    """The session cookie, with the CSRF token that a program has to send beside it."""

    def __init__(self) -> None:
        self._csrf: str | None = None
        self._has_cookies = False

    def send(self, base: str, request: Call) -> Flow[Answer]:  # noqa: ARG002 - the protocol's shape
        """Make a call; an unsafe one with the CSRF token, fetched once and anew when it is refused."""
        if request.method in SAFE:
            return (yield from self._send(request))
        token = self._csrf
        # Without any cookie there is nothing to forge, and a first sign-in needs no round trip more.
        if token is None and self._has_cookies:
            token = yield from self._fetch()
        answer = yield from self._send(request if token is None else with_header(request, x_csrf_token=token))
        if is_about(answer, 403, "forgery-suspected"):
            token = yield from self._fetch()
            answer = yield from self._send(with_header(request, x_csrf_token=token))
        return answer

    def forget(self) -> None:
        """Drop the CSRF token: it is bound to its session."""
        self._csrf = None

    def _send(self, request: Call) -> Flow[Answer]:
        answer: Answer = yield Send(request, cookies=True)
        self._has_cookies = self._has_cookies or "set-cookie" in answer.headers
        return answer

    def _fetch(self) -> Flow[str]:
        token: str = content((yield from self._send(call("GET", "/auth/csrf"))))["csrf_token"]
        self._csrf = token
        return token


@dataclass(frozen=True, slots=True)
class KeyAuth:
    """An API key, in the `X-API-Key` header."""

    key: str = field(repr=False)

    def send(self, base: str, request: Call) -> Flow[Answer]:  # noqa: ARG002 - the protocol's shape
        """Make a call with the key."""
        answer: Answer = yield Send(with_header(request, x_api_key=self.key))
        return answer

    def forget(self) -> None:
        """Do nothing: a key has no session."""


class SignedAuth:
    """A registered service, which signs each call with the key made from its secret (RFC 9421).

    `issuer` is what the identity service calls itself, where that is not the URL it is reached by: a signature covers
    the name of the server it is meant for. Raises ValueError for what is no client secret.
    """

    def __init__(self, client_id: str, secret: str, *, issuer: str | None = None, clock: Clock | None = None) -> None:
        from routeguard.foundation.signatures.profile import ClientSigner  # noqa: PLC0415 - the client extra

        self._signer = ClientSigner.of(client_id, secret)
        self._issuer = issuer
        self._clock = clock or SystemClock()

    def send(self, base: str, request: Call) -> Flow[Answer]:
        """Make a call under a signature of its own."""
        from routeguard.foundation.signatures.models import Message  # noqa: PLC0415 - the client extra

        url = (self._issuer or base).rstrip("/") + request.target
        message = Message.of(request.method, url, headers=request.headers, body=request.body)
        signature = self._signer.headers(message, now=self._clock.time())
        answer: Answer = yield Send(replace(request, headers={**request.headers, **signature}))
        return answer

    def forget(self) -> None:
        """Do nothing: a service has no session."""

    def __repr__(self) -> str:
        return f"SignedAuth({self._signer.client_id!r})"


class TokenAuth:
    """An access token as Bearer, renewed once for all threads and tasks: shortly before its end, and after a 401.

    ``TokenAuth(client.tokens())``. May be shared by any number of clients. `on_change` is told each new pair, to keep
    it somewhere safe: the refresh token before it is spent, and a spent one that is used later ends the session.
    """

    def __init__(
        self, tokens: TokenPair, *, on_change: Callable[[TokenPair], None] | None = None, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._on_change = on_change
        self._lock = Lock()
        self._flight: Flight | None = None
        self._pair: TokenPair | None = tokens
        self._ends = self._clock.monotonic() + tokens.expires_in

    @property
    def tokens(self) -> TokenPair | None:
        """The pair in use; None when the service has refused to renew it."""
        return self._pair

    def forget(self) -> None:
        """Do nothing: new tokens are given to a new `TokenAuth`."""

    def send(self, base: str, request: Call) -> Flow[Answer]:  # noqa: ARG002 - the protocol's shape
        """Make a call with a token that is good, and once more with a newer one after a 401.

        Raises what the service answered when a token could not be renewed: 503 is not a 401.
        """
        pair = yield from self._good()
        answer: Answer = yield Send(_bearer(request, pair))
        # A 401 did nothing, so that any call can be made again. To step up, another token does not help.
        if answer.status != _UNAUTHORIZED or is_about(answer, _UNAUTHORIZED, "step-up-required"):
            return answer
        try:
            newer = yield from self._renewed(pair)
        except ClientProblem as problem:
            # A limit or an outage is told as what it is: only the service's own 401 leaves the first one standing.
            if problem.status != _UNAUTHORIZED:
                raise
            return answer
        answer = yield Send(_bearer(request, newer))
        return answer

    def renew(self) -> Flow[TokenPair]:
        """Renew the pair now, or take part in what another thread or task has begun. Raises ClientProblem."""
        return (yield from self._renewed(self._pair))

    def _good(self) -> Flow[TokenPair]:
        pair, left = self._pair, self._ends - self._clock.monotonic()
        if pair is None or left <= 0:
            return (yield from self._renewed(pair))
        if left > min(_NEAR, pair.expires_in / 4):
            return pair
        try:
            return (yield from self._renewed(pair))
        except ServiceUnavailable:
            return pair  # Good for a moment yet, in which the service may come back.

    def _renewed(self, old: TokenPair | None) -> Flow[TokenPair]:
        """Return a pair newer than `old`. The first caller renews; the others wait and look again."""
        while True:
            with self._lock:
                pair, flight = self._pair, self._flight
                if pair is None:
                    raise ClientProblem(_UNAUTHORIZED, detail="The tokens are spent: sign in again.")
                if pair is not old:
                    return pair
                mine = flight is None
                if flight is None:
                    flight = self._flight = Future()
                    # A waiting caller must not cancel it for the others.
                    flight.set_running_or_notify_cancel()
            # To the end, even if a caller gives up meanwhile: a token that was sent may be spent.
            yield Finish(self._rotate(pair, flight)) if mine else Await(flight)
            failure = flight.result()
            if failure is not None:
                raise failure

    def _rotate(self, pair: TokenPair, flight: Flight) -> Flow[None]:
        newer: TokenPair | None = None
        failure: ClientProblem | None = None
        try:
            newer = pair_of((yield from _refresh(pair)))
        except ClientProblem as problem:
            failure = problem
        finally:
            with self._lock:
                self._flight = None
                if newer is not None:
                    self._pair, self._ends = newer, self._clock.monotonic() + newer.expires_in
                elif failure is not None and failure.status == _UNAUTHORIZED:
                    self._pair = None
            flight.set_result(failure)
        if newer is not None and self._on_change is not None:
            self._on_change(newer)

    def __repr__(self) -> str:
        return "TokenAuth(...)"


def pair_of(answer: Answer) -> TokenPair:
    """Return the pair in an answer. Raises ClientProblem."""
    body = content(answer)
    try:
        return TokenPair(body["access_token"], body["refresh_token"], int(body["expires_in"]))
    except (KeyError, TypeError, ValueError):
        raise ClientProblem(answer.status, detail="The answer holds no tokens.") from None


def _refresh(pair: TokenPair) -> Flow[Answer]:
    """Present the refresh token; once more where no answer came.

    The service may have spent it, and gives the same successor again for a few seconds only.
    """
    request = call("POST", "/auth/token/refresh", {"refresh_token": pair.refresh_token})
    try:
        answer: Answer = yield Send(request)
    except ServiceUnavailable:
        answer = yield Send(request)
    return answer


def _bearer(request: Call, pair: TokenPair) -> Call:
    return with_header(request, authorization=f"Bearer {pair.access_token}")
