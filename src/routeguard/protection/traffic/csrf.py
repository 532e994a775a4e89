"""Cross-site request forgery: Fetch Metadata, else Origin, else a token bound to the session.

A browser of the last years needs no token: it says itself where a request comes from, in fields no page can set.
Forms say so too (every browser sends `Origin` with a POST), so no body is read to look for a hidden field, and the
token travels in the `X-CSRF-Token` header only.
"""

from __future__ import annotations

from binascii import Error as BinasciiError
from binascii import a2b_base64, b2a_base64
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from logging import WARNING
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, ClassVar, Final

from typing_extensions import override

from routeguard.core.cookies import CookieScheme
from routeguard.core.credentials import has_explicit_field
from routeguard.core.overrides import is_overridden, unless_overridden
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.request import SAFE_METHODS
from routeguard.core.secret import DeploymentKeys, Purpose, equal, new_token
from routeguard.core.security_log import network_of, note
from routeguard.protection.traffic.origins import Origins, read_origins
from routeguard.protection.traffic.problems import FORGERY_SUSPECTED
from routeguard.protection.traffic.site import Site, site_of

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem
    from routeguard.core.services import Services

Resume = Callable[["Exchange"], Awaitable[Any]]

COOKIE_NAME: Final = "__Host-routeguard-csrf"
PLAIN_COOKIE_NAME: Final = "routeguard-csrf"
"""Only where a browser refuses the prefix: an issuer that is http on loopback."""
HEADER: Final = b"x-csrf-token"

_EXPLICIT_FIELDS: Final = frozenset({b"authorization", b"x-api-key", b"signature-input"})
_VERIFIED_FIELDS: Final = frozenset({b"signature-input", b"sec-websocket-protocol"})
_DECIDING: Final = frozenset({b"origin", b"sec-fetch-site", HEADER})

# A token is 16 random bytes, 8 of time and 24 of MAC over both.
_NONCE_SIZE: Final = 16
_TIME_SIZE: Final = 8
_MAC_SIZE: Final = 24
_COVERED: Final = _NONCE_SIZE + _TIME_SIZE
_TEXT_SIZE: Final = (_COVERED + _MAC_SIZE) * 4 // 3
# base64url to base64; the other alphabet's two letters become something no decoder accepts.
_TO_BASE64: Final = bytes.maketrans(b"-_+/", b"+/!!")
_TO_BASE64URL: Final = bytes.maketrans(b"+/", b"-_")
_SKEW: Final = 60
_GUEST_SIZE: Final = 43


class CsrfTokens:
    """What CSRF checks compare with: the trusted origins, and the keys of the tokens.

    A token is a keyed BLAKE2b (RFC 7693) over the session's id, or a guest's pre-session cookie, and the time it was
    made. It proves more than a cookie sent twice (attack CSRF-15): no other can make one, and it ends with the session
    it belongs to, so it changes at sign-in and at sign-out (CSRF-14).
    """

    def __init__(
        self,
        keys: DeploymentKeys,
        *,
        origins: Iterable[str],
        clock: Clock,
        cookies: CookieScheme | None = None,
        life: timedelta = timedelta(hours=12),
        resume: Resume | None = None,
        presents: Callable[[Exchange], bool] | None = None,
    ) -> None:
        """Parse the origins and patterns; raises ConfigError for any that no browser sends or anybody could match.

        `origins` are all whose pages may use our cookies, our own included; `cookies` is how those are called.
        `life` is how long a token is good for.
        `resume` finds the session of an exchange on routes whose policy did not ask for one, where `presents` says
        that a cookie which stands for a session was sent.
        """
        self.origins = read_origins(origins)
        self.check: BoundCheck | None = None
        """The check as `is_foreign` asks it, compiled at the first question."""
        self._cookie = (cookies or CookieScheme()).cookie("csrf")
        self.cookie_name = self._cookie.name
        self._keyed, *self._older = (_keyed(key) for key in keys.derive(Purpose.CSRF))
        self._clock = clock
        self._life = int(life.total_seconds())
        self._resume = resume
        self._presents = presents

    async def issue(self, exchange: Exchange) -> str:
        """Return a token for the caller; a guest gets the cookie it is bound to with the response.

        Every token has a nonce, so that no two have the same MAC and compressed pages do not give it away (CSRF-26).
        """
        bound_to = await self._bound_to(exchange)
        if bound_to is None:
            guest = new_token()
            former = self._cookie.clearing_former(exchange.request.headers.get(b"cookie", b""))
            for line in (self._cookie.setting(guest, max_age=None), *former):
                exchange.add_header(b"set-cookie", line)
            bound_to = b"g:" + guest.encode()
        covered = token_bytes(_NONCE_SIZE) + int(self._clock.time()).to_bytes(_TIME_SIZE, "big")
        token = covered + _mac(self._keyed, covered + bound_to)
        return b2a_base64(token, newline=False).translate(_TO_BASE64URL).decode("ascii")

    async def verify(self, exchange: Exchange, token: bytes) -> bool:
        """Return whether `token` was issued to this very caller. Never raises for what it holds (attack CSRF-19)."""
        # Guests only have to be looked up; the check on every request of a signed-in user waits for nothing.
        principal = exchange.principal
        bound_to = await self._bound_to(exchange) if principal is None else _session_of(principal)
        if bound_to is None or len(token) != _TEXT_SIZE:
            return False
        try:
            raw = a2b_base64(token.translate(_TO_BASE64), strict_mode=True)
        except BinasciiError:
            return False
        covered = raw[:_COVERED]
        age = self._clock.time() - int.from_bytes(raw[_NONCE_SIZE:_COVERED], "big")
        if not -_SKEW <= age <= self._life:
            return False
        mac = raw[_COVERED:]
        covered += bound_to
        if equal(mac, _mac(self._keyed, covered)):
            return True
        return any(equal(mac, _mac(older, covered)) for older in self._older)

    async def _bound_to(self, exchange: Exchange) -> bytes | None:
        """Return what ties a token to this browser: its session, else its pre-session cookie."""
        principal: Any = exchange.principal
        if principal is None and self._resume and self._presents and self._presents(exchange):
            principal = await self._resume(exchange)
        if principal is not None:
            return _session_of(principal)
        # Two cookies of the name are none: one of them was planted (attack CSRF-16).
        guest = exchange.request.cookie(self.cookie_name)
        return None if guest is None or len(guest) != _GUEST_SIZE else b"g:" + guest.encode("latin-1")


def csrf(*, token: bool = False) -> Policy:
    """Return the policy that refuses forged requests: 403 `forgery-suspected`.

    A browser's request must come from a trusted origin; one that carries cookies and says nothing of its origin must
    carry a token. `token=True` demands the token of every unsafe request that a browser could have been made to send.
    A WebSocket handshake, where pages cannot set fields, is judged by its Origin in both cases.
    """
    return Policy((Csrf(token),))


def unsafe_without_csrf() -> Policy:
    """Return the policy that takes one handler out of the default `csrf()`. The audit lists each of them.

    Exemptions are handlers, never patterns of paths (attack CSRF-23).
    """
    return Policy((WithoutCsrf(),))


def with_csrf(policy: Policy) -> Policy:
    """Return `policy` with the default `csrf()` added, unless it says itself what it wants.

    What one side of a `|` says is not enough: the other side would go without.
    """
    if any(isinstance(check, Csrf | WithoutCsrf) for check in policy.checks):
        return policy
    return Policy((*policy.checks, Csrf()), policy.name)


@dataclass(frozen=True, slots=True)
class Csrf(Check):
    """An unsafe request comes from our own pages, or from no browser at all."""

    stage = Stage.FORGERY  # When it is known whether the credential is one that browsers send by themselves.
    statuses: ClassVar[tuple[int, ...]] = (403,)
    unsafe_only = True

    token: bool = False

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the trusted origins and keys."""
        tokens = services.get(CsrfTokens)
        trusts, verify, demanded = tokens.origins.trusts, tokens.verify, self.token
        site = site_of(services)
        suspect, foreign = _suspect(site), _foreign(site, tokens.origins)

        async def csrf_checked(exchange: Exchange) -> Outcome:
            request = exchange.request
            if request.kind == "websocket":
                return None if _may_shake_hands(exchange, trusts) else suspect(exchange, foreign(exchange))
            # 1. A safe method changes nothing (that it does not is for the audit: attack CSRF-12).
            if request.method in SAFE_METHODS:
                return None
            headers = request.headers
            if not _EXPLICIT_FIELDS.isdisjoint(headers) and _is_explicit(exchange):
                return None
            if request.repeated and not request.repeated.isdisjoint(_DECIDING):
                return suspect(exchange, _REPEATED)
            # A token that is sent counts, whatever else speaks for the request.
            proof = headers.get(HEADER)
            if proof is not None:
                if not await verify(exchange, proof):
                    return suspect(exchange, _WRONG_TOKEN)
            elif demanded:
                return suspect(exchange, _NO_TOKEN)
            # 2. A trusted Origin.
            origin = headers.get(b"origin")
            if trusts(origin):
                return None
            # 3. Fetch Metadata. Evidence against a browser's attack only: it grants nothing.
            sent_by = headers.get(b"sec-fetch-site")
            if sent_by is not None:
                return None if sent_by in {b"same-origin", b"none"} else suspect(exchange, _CROSS_SITE)
            # 4. An Origin that is not ours: `null`, the other scheme, another port, a look-alike (CSRF-03 to CSRF-07).
            if origin is not None:
                return suspect(exchange, foreign(exchange))
            # 5. Neither: no browser of today. With a credential a browser might have added, the token decides.
            return None if proof is not None or not _is_ambient(exchange) else suspect(exchange, _NO_PROOF)

        # What a test says who is calling is no credential that a browser adds: there is nothing to forge.
        return unless_overridden(services, csrf_checked)

    @override
    def describe(self) -> str:
        return "CSRF token" if self.token else "CSRF-checked"

    @override
    def attacks(self) -> Iterable[Attack]:
        """What a foreign page can make a browser send, and made-up tokens."""
        evil = ("origin", "https://attacker.example")
        for name, headers in (
            ("cross-site form", (evil, ("sec-fetch-site", "cross-site"))),
            ("sibling host", (evil, ("sec-fetch-site", "same-site"))),
            ("foreign Origin of an older browser", (evil,)),
            ("sandboxed frame", (("origin", "null"),)),
            ("made-up token", (("x-csrf-token", "A" * _TEXT_SIZE),)),
            ("malformed token", (("x-csrf-token", "NaN.NaN"),)),
        ):
            yield Attack(name=name, status=403, method="POST", headers=headers)


@dataclass(frozen=True, slots=True)
class WithoutCsrf(Check):
    """The default CSRF check is left out, on purpose."""

    stage = Stage.FORGERY

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Return a check that passes."""
        return _pass

    @override
    def describe(self) -> str:
        return "NO CSRF CHECK"


async def _pass(exchange: Exchange) -> Outcome:  # noqa: ARG001 - the shape of a bound check
    return None


def _suspect(site: Site) -> Callable[[Exchange, Problem], Problem]:
    """Return what writes a refusal to the security log and hands it on."""

    def suspect(exchange: Exchange, problem: Problem) -> Problem:
        network = network_of(site.address(exchange))
        note("forgery-suspected", exchange, level=WARNING, cause=problem.debug, network=network)
        return problem

    return suspect


def _foreign(site: Site, origins: Origins) -> Callable[[Exchange], Problem]:
    """Return what says why the Origin of a request, or the lack of one, is refused.

    On a developer's machine it says what was expected: another port than the issuer's is the usual cause there.
    """
    ours = ", ".join(origins.written())
    advice = "" if site.https else f"; expected from {ours}: set ROUTEGUARD_ISSUER to the origin you open"
    untrusted = _FOREIGN_ORIGIN.with_debug(f"{_FOREIGN_ORIGIN.debug}{advice}")

    def foreign(exchange: Exchange) -> Problem:
        request = exchange.request
        if b"origin" in request.repeated:
            return _REPEATED
        origin = request.headers.get(b"origin")
        return _NO_ORIGIN if origin is None else _NULL_ORIGIN if origin == b"null" else untrusted

    return foreign


async def is_foreign(exchange: Exchange, services: Services) -> bool:
    """Return whether a page of a foreign origin sent this, with a credential its browser added.

    For routes without the check: of every handshake (attack WS-01) and of unsafe requests (attack CSRF-01). SameSite is
    no answer: the pages of every sibling host are of the same site, and their requests carry our cookies.
    """
    tokens = services.find(CsrfTokens)
    if tokens is None or is_overridden(exchange):
        return False
    if exchange.request.kind == "websocket":
        return not _may_shake_hands(exchange, tokens.origins.trusts)
    tokens.check = tokens.check or Csrf().bind(services)
    return await tokens.check(exchange) is not None


def _may_shake_hands(exchange: Exchange, trusts: Callable[[bytes | None], bool]) -> bool:
    """Return whether no foreign page opens this socket with our cookies (attacks WS-01, WS-02).

    Browsers apply no CORS to sockets and always send Origin, so a trusted one is the only proof.
    """
    headers = exchange.request.headers
    if trusts(headers.get(b"origin")) and b"origin" not in exchange.request.repeated:
        return True
    if _is_explicit(exchange):
        return True
    # The user was found by neither cookie nor `Authorization`: by a field that a proxy adds for this browser, or by its
    # address. Both come along with the handshake of any page.
    found = b"origin" in headers and exchange.principal is not None
    return not (found or _is_ambient(exchange))


def _is_explicit(exchange: Exchange) -> bool:
    """Whether the credential is one that only a program can have put there.

    A page that could set these fields on a foreign request would need our leave by CORS first. When a browser's own
    credentials came along, of whichever user, an invented field must not switch the check off (attack CSRF-01): the
    identity check's word is needed then.
    """
    headers = exchange.request.headers
    if has_explicit_field(exchange.request):
        return _is_verified(exchange) or not (b"cookie" in headers or _has_certificate(exchange))
    # A message signature (RFC 9421) is made for one call; nothing but its verification tells it from an invented one.
    # A page may offer any subprotocol in a handshake: one that carries a credential counts once that was verified.
    return not _VERIFIED_FIELDS.isdisjoint(headers) and _is_verified(exchange)


def _is_verified(exchange: Exchange) -> bool:
    """Whether the principal as it is now was found by a credential that browsers do not add by themselves."""
    credential = exchange.credential
    return credential is not None and not credential.ambient


def _is_ambient(exchange: Exchange) -> bool:
    """Whether anything was sent that a browser adds by itself: a cookie, HTTP authentication, a certificate."""
    headers = exchange.request.headers
    return b"cookie" in headers or b"authorization" in headers or _has_certificate(exchange)


def _has_certificate(exchange: Exchange) -> bool:
    tls = (exchange.request.scope.get("extensions") or {}).get("tls")
    return bool(tls and tls.get("client_cert_name"))


def _session_of(principal: Any) -> bytes:
    """Return the id of the caller's session, or of the caller where the application's own sign-in has none."""
    return f"s:{getattr(principal, 'id', None) or principal.principal_id}".encode()


def _keyed(key: bytes) -> blake2b:
    """Return a hash that has taken the key already: copying it costs two thirds of making one."""
    return blake2b(key=key, digest_size=_MAC_SIZE)


def _mac(keyed: blake2b, covered: bytes) -> bytes:
    keyed = keyed.copy()
    keyed.update(covered)
    return keyed.digest()


_CROSS_SITE: Final = FORGERY_SUSPECTED(
    debug="Sec-Fetch-Site is neither same-origin nor none: add the page's origin to trusted_origins if it is yours"
)
_FOREIGN_ORIGIN: Final = FORGERY_SUSPECTED(debug="the Origin is not trusted")
_NULL_ORIGIN: Final = FORGERY_SUSPECTED(debug="the Origin is null: a sandboxed frame, a file, or a redirect sent it")
_NO_ORIGIN: Final = FORGERY_SUSPECTED(
    debug="a handshake without Origin, with a credential that browsers send by themselves: programs send an access "
    "token or an API key, and no cookie"
)
_NO_PROOF: Final = FORGERY_SUSPECTED(
    debug="no Origin, Sec-Fetch-Site or X-CSRF-Token, with a credential that browsers send by themselves: programs "
    "send the token, or an access token or API key and no cookie"
)
_NO_TOKEN: Final = FORGERY_SUSPECTED(debug="no X-CSRF-Token, which this route demands")
_WRONG_TOKEN: Final = FORGERY_SUSPECTED(debug="the CSRF token is malformed, expired or not this caller's")
_REPEATED: Final = FORGERY_SUSPECTED(debug="a deciding header was sent twice")
