"""The policy for routes that only other services call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from routeguard.core.clock import SteadyClock
from routeguard.core.credentials import Credential
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.problem import authentication_required
from routeguard.core.secret import digest
from routeguard.core.security_log import network_of, note
from routeguard.core.security_schemes import SecurityScheme
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral, hash_tag
from routeguard.foundation.signatures.models import Message, SignatureError, authority_of
from routeguard.foundation.signatures.profile import require_current, signature_of, verify
from routeguard.identity.oauth_server.service import Clients
from routeguard.protection.traffic.site import site_of

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.core.exchange import Exchange
    from routeguard.core.request import RequestView
    from routeguard.core.services import Services
    from routeguard.foundation.signatures.fields import Signature
    from routeguard.identity.oauth_server.models import ClientPrincipal
    from routeguard.identity.oauth_server.service import KnownClient

_BODY_SECONDS: Final = 10.0
_ONCE: Final = frozenset({b"signature-input", b"signature", b"content-digest", b"content-type"})
_SIGNATURE: Final = Credential("signature")
_FORGED_INPUT: Final = (
    'sig=("@method" "@authority" "@path" "@query" "content-digest");created=1;expires=2'
    ';nonce="AAAAAAAAAAAAAAAA";alg="ed25519";keyid="cli_made-up";tag="routeguard"'
)
_FORGED: Final = (
    ("content-digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
    ("signature-input", _FORGED_INPUT),
    ("signature", f"sig=:{'A' * 86}==:"),
)


@dataclass(frozen=True, slots=True)
class SignedCalls:
    """What signatures are judged by: registered once. `authorities` are the hosts this service is called by."""

    authorities: tuple[str, ...]
    skew: float
    """Seconds."""
    begun: int
    """Seconds since the epoch: when this process began to remember signatures, where it does so in its own memory."""


def signed_client() -> Policy:
    """Return the policy that asks for a call signed by a registered client (RFC 9421): 401 without one.

    Method, authority, path, query, content type and the digest of the body are covered, and each signature counts
    once. The authority is that of the issuer's URL, or one of `clients.addresses`; what `Host` says is not asked.
    """
    return Policy((SignedClient(),))


@dataclass(frozen=True, slots=True)
class SignedClient(Check):
    """A call signed by a registered client."""

    stage = Stage.IDENTITY

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the clients and the store of nonces. Raises ConfigError without them."""
        verifier = _Verifier(services)
        site = site_of(services)

        async def signed(exchange: Exchange) -> Outcome:
            request = exchange.request
            # A policy may ask twice, on a mount and on its route: the call is still one call, and its nonce is spent.
            key = (SignedClient, request.method, request.path, request.scope.get("query_string"), *request.raw_headers)
            try:
                client = exchange.memo.get(key) or await verifier.client_of(exchange)
            except SignatureError as error:
                cause = str(error)
                if _presents(exchange):
                    note("client-refused", exchange, reason=cause, network=network_of(site.address(exchange)))
                return authentication_required(cause)
            exchange.principal = exchange.memo[key] = client
            exchange.record_credential(client, _SIGNATURE)
            return None

        return signed

    @override
    def presents(self, services: Services) -> Callable[[Exchange], bool]:
        """Return what tells whether a signature was sent."""
        return _presents

    @override
    def describe(self) -> str:
        return "signed by a registered client"

    @override
    def attacks(self) -> Iterable[Attack]:
        """Yield a call without a signature, and one with a signature that was made up."""
        yield Attack(name="no signature", status=401, anonymous=True)
        yield Attack(name="made-up signature", status=401, anonymous=True, headers=_FORGED)


def _presents(exchange: Exchange) -> bool:
    return b"signature-input" in exchange.request.headers


class _Verifier:
    """Does what RFC 9421 section 3.2 asks of a verifier, the cheap and certain things first."""

    def __init__(self, services: Services) -> None:
        self._clients = services.get(Clients)
        self._store: Ephemeral = services.get(Ephemeral)
        self._calls = services.get(SignedCalls)
        self._clock: Clock = services.get(SteadyClock)
        # None where the store outlives this process. Not the time of this first request, which was signed before it.
        self._begun = self._calls.begun if isinstance(self._store, MemoryEphemeral) else None

    async def client_of(self, exchange: Exchange) -> ClientPrincipal:
        """Return who signed a call. Raises SignatureError, and Unavailable when that cannot be told."""
        calls = self._calls
        message = _head(exchange.request, calls.authorities[0])
        signature = signature_of(message)
        require_current(signature, now=self._clock.time(), skew=calls.skew)
        await self._known(signature)
        if exchange.read_body is None:
            raise SignatureError("the body cannot be read before the handler")
        # Only now: of a call that names no client, no byte of the body is read. A caller that delays it holds a call
        # of a client that is revoked meanwhile, or one that was used and forgotten: all is asked again (attack WH-03).
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await exchange.read_body()
        except TimeoutError:
            raise SignatureError("the body did not come in time") from None
        require_current(signature, now=self._clock.time(), skew=calls.skew)
        client = await self._known(signature)
        self._verify(message, signature, body, client.keys(self._clock.monotonic()))
        await self._use_up(client.principal.id, signature)
        return client.principal

    async def _known(self, signature: Signature) -> KnownClient:
        client = await self._clients.find(signature.keyid or "")
        if client is None:
            raise SignatureError("the client is not known")
        return client

    def _verify(self, message: Message, signature: Signature, body: bytes, keys: tuple[bytes, ...]) -> None:
        *others, last = self._calls.authorities
        # Never by what `Host` says: a call made for another service, or another stage, must not count (attack WH-21).
        for authority in others:
            try:
                verify(_at(message, authority, body), signature, keys)
            except SignatureError:
                continue
            return
        verify(_at(message, last, body), signature, keys)

    async def _use_up(self, client_id: str, signature: Signature) -> None:
        """Make a signature void, so that it counts once however often it is sent, to whichever process (attack WH-03).

        Only after it was verified: else an attacker could use up an observed nonce. It is remembered until no process
        takes the signature any more, were its clock behind ours by twice what is allowed.
        """
        assert signature.expires is not None
        assert signature.created is not None
        if self._begun is not None and signature.created < self._begun:
            # What this process used up before it was started again, it has forgotten (attack WH-03).
            raise SignatureError("the signature is older than this process and its memory")
        left = max(signature.expires - self._clock.time(), 1.0) + 2 * self._calls.skew
        # Over many tags: one subject has a small share of `memory://`, and a client may call thousands of times.
        nonce = digest(signature.nonce or "")
        key = f"{hash_tag(f'{client_id}:{nonce[0]:02x}')}:nonce:{nonce.hex()}"
        if await self._store.claim(key, b"1", ttl=left) is not None:
            raise SignatureError("the signature was used before")


def _head(request: RequestView, authority: str) -> Message:
    """Return a request as its signature sees it, without a body yet. Raises SignatureError for a doubled field."""
    if request.kind != "http":
        raise SignatureError("a WebSocket handshake is not signed")
    if not _ONCE.isdisjoint(request.repeated):
        raise SignatureError("a field of the signature is there twice")
    # What came twice is left out, so that a signature that covers it is invalid.
    headers = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in request.headers.items()
        if name not in request.repeated
    }
    scope = request.scope
    path: bytes = scope.get("raw_path") or request.path.encode()
    query: bytes = scope.get("query_string", b"")
    target = (path + b"?" + query if query else path).decode("latin-1")
    return Message(request.method, authority, target, headers)


def _at(message: Message, authority: str, body: bytes) -> Message:
    return Message(message.method, authority, message.target, message.headers, body)


def authorities(issuer: str, addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the hosts a call may have been signed for, the issuer's first."""
    return tuple(dict.fromkeys(authority_of(one) for one in (issuer, *addresses)))


SIGNATURE_SCHEME: Final = SecurityScheme(
    name="signature",
    description={
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": "A signature by a registered client (RFC 9421), with Signature-Input and Content-Digest.",
    },
    required_by=(SignedClient,),
    on_demand=True,
)
