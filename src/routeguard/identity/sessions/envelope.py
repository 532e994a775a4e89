"""The session cookie's value: what the server wants to remember for a minute, signed so that no other can make one."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from routeguard.core.cookies import MAXIMUM_SIZE
from routeguard.core.secret import Purpose, equal
from routeguard.identity.sessions.models import SessionState  # noqa: TC001 - msgspec reads the annotation

if TYPE_CHECKING:
    from routeguard.core.secret import DeploymentKeys

_MAC_BYTES: Final = 32
_PREFERRED_SIZE: Final = 3800
"""Bytes of a cookie value over which the user is left out: some proxies cap all cookies together at 4 KB."""


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A session as its cookie tells it.

    `secret` proves the session to the store, which knows its hash only. `user` is the encoded user record as of
    `issued_at` (seconds since the epoch); empty when it would not fit.
    """

    state: SessionState
    secret: bytes
    issued_at: float
    user: bytes = b""

    def __repr__(self) -> str:
        """Name the session and never its secret: reprs end up in logs."""
        return f"Envelope({self.state.id})"


class EnvelopeCodec:
    """Signs envelopes with the first key and opens those of any. Opening never raises.

    ``payload.mac``, both unpadded base64url; the MAC is keyed BLAKE2b over the payload's text.
    """

    __slots__ = ("_decoder", "_encoder", "_keys", "_unbound")

    def __init__(self, keys: DeploymentKeys) -> None:
        self._keys = keys.derive(Purpose.SESSION_COOKIE)
        self._unbound = keys.derive_unbound(Purpose.SESSION_COOKIE)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Envelope)

    def seal(self, envelope: Envelope) -> str:
        """Return the cookie value; without the user when that would make it too long for a cookie (attack CK-09)."""
        value = self._seal(envelope)
        if len(value) > _PREFERRED_SIZE:
            value = self._seal(msgspec.structs.replace(envelope, user=b""))
        return value.decode("ascii")

    def open(self, value: bytes) -> Envelope | None:
        """Return what a cookie value says, or None for anything this deployment did not sign.

        A cookie from before keys were bound to the issuer comes back without a user and as issued at 0: the store
        has to know its secret, and the session gets a new cookie.
        """
        if len(value) > MAXIMUM_SIZE:
            return None
        payload, _, mac = value.rpartition(b".")
        # Attack SES-30: the MAC is compared as text, because base64 has several spellings of most byte strings and
        # only ours may pass; and nothing of the payload is looked at before it is known to be our own.
        if any(equal(mac, _mac(key, payload)) for key in self._keys):
            return self._decode(payload)
        # Attack SES-31: another deployment with the same secret may have signed it, so only the store can tell.
        if any(equal(mac, _mac(key, payload)) for key in self._unbound):
            found = self._decode(payload)
            return None if found is None else msgspec.structs.replace(found, issued_at=0.0, user=b"")
        return None

    def _decode(self, payload: bytes) -> Envelope | None:
        try:
            return self._decoder.decode(urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        except (msgspec.DecodeError, ValueError):
            return None  # Ours, but of a version this one cannot read: the user signs in again.

    def _seal(self, envelope: Envelope) -> bytes:
        payload = urlsafe_b64encode(self._encoder.encode(envelope)).rstrip(b"=")
        return payload + b"." + _mac(self._keys[0], payload)


def _mac(key: bytes, payload: bytes) -> bytes:
    return urlsafe_b64encode(blake2b(payload, key=key, digest_size=_MAC_BYTES).digest()).rstrip(b"=")
