"""Which foreign pages may read our answers (the CORS protocol of the Fetch standard, section 3.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from routeguard.core.decision import Reply
from routeguard.core.errors import ConfigError
from routeguard.core.policy import BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.request import is_preflight
from routeguard.protection.traffic.origins import Origins, read_origins

if TYPE_CHECKING:
    from collections.abc import Callable

    from routeguard.core.exchange import Exchange
    from routeguard.core.request import RequestView
    from routeguard.core.services import Services

Headers = tuple[tuple[bytes, bytes], ...]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}", re.ASCII)
_VARY: Final = (b"vary", b"Origin")
_VARY_PREFLIGHT: Final = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
_LONGEST: Final = 4096
"""Bytes of a list of header names that are looked at."""
_SAFELISTED: Final = ("accept", "accept-language", "content-language", "content-type")


def cors(
    *,
    origins: Iterable[str],
    credentials: bool = False,
    methods: Iterable[str] = ("GET", "HEAD", "POST"),
    headers: Iterable[str] = (),
    expose: Iterable[str] = (),
    max_age: timedelta = timedelta(minutes=10),
) -> Policy:
    """Return the policy that lets pages of `origins` read the answers, refusals included.

    `origins` are exact, patterns such as ``"https://*-team.example.app"``, or ``["*"]`` for everybody; `credentials`
    lets such pages send our cookies, and with "*" is a ConfigError. `methods` and `headers` are what they may send,
    `expose` what they may read beside the usual, and `max_age` how long a browser remembers. It opens and refuses
    nothing: a request of any origin is still judged by the other checks, and a page that may read answers is not
    thereby trusted by `csrf()`.
    """
    return Policy(
        (
            Cors(
                _texts(origins),
                credentials,
                _texts(methods),
                _texts(headers),
                _texts(expose),
                int(max_age.total_seconds()),
            ),
        )
    )


def identity_cors(origins: Iterable[str]) -> Policy:
    """Return the policy of the identity routes under `cors_origins`: what their methods and clients need."""
    return cors(
        origins=origins,
        credentials=True,
        methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
        headers=("Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-CSRF-Token"),
        expose=("RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"),
    )


def preflight(policy: Policy, request: RequestView) -> Reply | None:
    """Answer a preflight for a route under `policy`, before the caller is identified.

    A preflight carries no credential, and its route may have no handler for OPTIONS: the guard asks here first
    (attack CSRF-21). None when the request is no preflight, or when the policy has no `cors()`: the 405 or 401 that
    follows is a no to browsers.
    """
    if not is_preflight(request):
        return None
    found: Cors | None = next(iter(policy.find(Cors)), None)
    return None if found is None else found.preflight(request)


@dataclass(frozen=True, slots=True)
class Cors(Check):
    """Pages of `origins` may read the answer."""

    stage = Stage.RESPONSE  # First, so that a page can read a refusal too.

    origins: tuple[str, ...]
    credentials: bool = False
    methods: tuple[str, ...] = ("GET", "HEAD", "POST")
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: int = 600
    """In seconds."""

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile. Raises ConfigError for "*" with credentials and for anything that is not exact."""
        if findings := self.findings():
            raise ConfigError(findings)
        granted = _lookup(self.origins, self._grants)

        async def readable(exchange: Exchange) -> Outcome:
            request = exchange.request
            if request.method == "OPTIONS" and is_preflight(request):
                return self.preflight(request)
            exchange.effects += granted(request)
            return None

        return readable

    def findings(self) -> list[str]:
        """Return everything that is wrong with it."""
        found: list[str] = []
        if "*" in self.origins:
            # Every page on earth could read what the visitor's cookies open.
            if self.credentials:
                found.append("cors() with origin '*' cannot allow credentials: name the origins")
            if len(self.origins) > 1:
                found.append("cors() with origin '*' names other origins as well")
        else:
            try:
                read_origins(self.origins)
            except ConfigError as error:
                found += error.findings
        if not self.origins:
            found.append("cors() needs an origin")
        for name in (*self.methods, *self.headers, *self.expose):
            if not _TOKEN.fullmatch(name) or name == "*":
                found.append(f"cors() name {name!r} is not the name of a method or header")
        # Browsers compare methods with their case, and send all that have a usual name in capitals.
        found += [f"cors() method {name!r} is not in capitals" for name in self.methods if name != name.upper()]
        if self.max_age < 0:
            found.append("cors() max_age must not be negative")
        return found

    def preflight(self, request: RequestView) -> Reply:
        """Answer a preflight: 204 with what is allowed, or 403 with nothing a browser could take for a yes."""
        grants = _lookup(self.origins, self._grants)(request)
        foreign = grants is _FOREIGN
        asked = request.headers.get(b"access-control-request-method", b"").decode("latin-1")
        names = request.headers.get(b"access-control-request-headers", b"")
        if foreign or asked not in self.methods or not self._may_send(names):
            return _REFUSED
        allowed = [pair for pair in grants if pair[0] not in {b"vary", b"access-control-expose-headers"}]
        allowed.append((b"access-control-allow-methods", ", ".join(self.methods).encode("ascii")))
        if self.headers:
            allowed.append((b"access-control-allow-headers", ", ".join(self.headers).encode("ascii")))
        allowed.append((b"access-control-max-age", str(self.max_age).encode("ascii")))
        return Reply(204, (*allowed, _VARY_PREFLIGHT))

    @override
    def describe(self) -> str:
        return f"readable by {'any page' if '*' in self.origins else ' and '.join(self.origins)}"

    def _may_send(self, names: bytes) -> bool:
        if len(names) > _LONGEST:
            return False
        allowed = {name.lower() for name in (*self.headers, *_SAFELISTED)}
        return all(name.strip(" \t").lower() in allowed for name in names.decode("latin-1").split(",") if name.strip())

    def _grants(self, origin: bytes) -> Headers:
        pairs: list[tuple[bytes, bytes]] = [(b"access-control-allow-origin", origin)]
        if self.credentials:
            pairs.append((b"access-control-allow-credentials", b"true"))
        if self.expose:
            pairs.append((b"access-control-expose-headers", ", ".join(self.expose).encode("ascii")))
        return (*pairs, _VARY)


def _lookup(origins: tuple[str, ...], grants: Callable[[bytes], Headers]) -> Callable[[RequestView], Headers]:
    """Return what finds the ready headers of a request. Foreign origins get `Vary` only, or caches would mix."""
    if "*" in origins:
        everybody = grants(b"*")
        return lambda _: everybody
    known = _read(origins)
    ready = {origin: grants(origin) for origin in known.exact}
    patterns = known.patterns

    def find(request: RequestView) -> Headers:
        origin = request.headers.get(b"origin", b"")
        found = ready.get(origin)
        # What a pattern matches has no byte but those of a host and a port, so it can be repeated in a field.
        if found is None and patterns and known.trusts(origin):
            found = grants(origin)
        return _FOREIGN if found is None or b"origin" in request.repeated else found

    return find


@lru_cache(maxsize=256)
def _read(origins: tuple[str, ...]) -> Origins:
    """Read a policy's origins once: a preflight is answered without what `bind` made."""
    return read_origins(origins)


def _texts(texts: Iterable[str]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


_FOREIGN: Final[Headers] = (_VARY,)
_REFUSED: Final = Reply(403, (_VARY_PREFLIGHT, (b"content-length", b"0")))
