"""The refresh token's text: opaque to clients, made by us beyond doubt, and its own successor's only ancestor."""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Final

import msgspec

from routeguard.core.secret import Purpose, digest, equal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from routeguard.core.secret import DeploymentKeys

_SECRET_BYTES: Final = 32
_LONGEST: Final = 512
"""Characters; ours have about 170."""


class RefreshToken(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a refresh token says. `generation` counts the rotations of its family; `secret` is 32 bytes."""

    user_id: str
    family_id: str
    generation: int
    secret: bytes

    def __repr__(self) -> str:
        """Name the family and never the secret: reprs end up in logs."""
        return f"RefreshToken({self.family_id} {self.generation})"


class RefreshCodec:
    """Writes tokens with the first key and reads those of any. Reading never raises.

    ``payload.mac``, both unpadded base64url; the MAC is HMAC-SHA256 (RFC 2104) over the payload's text. A token that
    was not made here is told without the store, so no guess reaches a family to end it.
    """

    __slots__ = ("_decoder", "_encoder", "_keys")

    def __init__(self, keys: DeploymentKeys) -> None:
        token, successor = Purpose.REFRESH, Purpose.REFRESH_SUCCESSOR
        # The second half reads tokens from before keys were bound to the issuer. What such a token is worth the
        # store decides, as of every other, and its successor is written with a bound key.
        self._keys = (
            *zip(keys.derive(token), keys.derive(successor), strict=True),
            *zip(keys.derive_unbound(token), keys.derive_unbound(successor), strict=True),
        )
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(RefreshToken)

    def first(self, user_id: str, family_id: str) -> str:
        """Return the first token of a new family."""
        token = RefreshToken(user_id, family_id, 0, secrets.token_bytes(_SECRET_BYTES))
        return self._write(token, self._keys[0][0])

    def read(self, text: str | bytes) -> RefreshToken | None:
        """Return what a token says, or None for anything we did not write."""
        value = text.encode("utf-8", "replace") if isinstance(text, str) else text
        if len(value) > _LONGEST:
            return None
        payload, _, mac = value.rpartition(b".")
        # Attack SES-30: compared as text, for base64 spells most byte strings in several ways and the store knows the
        # digest of one; and nothing of the payload is looked at before it is known to be our own.
        if not any(equal(mac, _mac(key, payload)) for key, _ in self._keys):
            return None
        try:
            return self._decoder.decode(urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        except (msgspec.DecodeError, ValueError):
            return None  # Ours, but of a version this one cannot read: the user signs in again.

    def successor(self, token: RefreshToken) -> str:
        """Return the token after `token`: always the same one, so that a lost answer can be given again.

        It follows from the presented token and a key only the service has. So it need not be kept, a reader of the
        database cannot make it, and two who rotate one token at once cannot come out with two.
        """
        return next(self.successors(token))

    def successors(self, token: RefreshToken) -> Iterator[str]:
        """Yield the successor under each key, ours first: another may have been first when it was made."""
        generation = token.generation + 1
        context = f"next:{token.user_id}:{token.family_id}:{generation}:".encode()
        for key, next_key in self._keys:
            secret = hmac.digest(next_key, context + token.secret, "sha256")
            yield self._write(RefreshToken(token.user_id, token.family_id, generation, secret), key)

    def _write(self, token: RefreshToken, key: bytes) -> str:
        payload = urlsafe_b64encode(self._encoder.encode(token)).rstrip(b"=")
        return (payload + b"." + _mac(key, payload)).decode("ascii")


def hash_of(text: str | bytes) -> bytes:
    """Return what is stored of a token: SHA-256 of the whole text, 32 bytes (attack SES-22)."""
    return digest(text)


def _mac(key: bytes, payload: bytes) -> bytes:
    return urlsafe_b64encode(hmac.digest(key, payload, "sha256")).rstrip(b"=")
