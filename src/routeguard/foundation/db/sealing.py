"""Secrets that have to be read again, sealed before they are stored: a dump of the database opens none."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from routeguard.core.secret import DeploymentKeys, Purpose

_NONCE: Final = 12


class Sealer:
    """Seals with the newest key of a purpose and opens what any of them sealed (AES-GCM, NIST SP 800-38D).

    What is sealed for one purpose or issuer cannot be opened for another (attack SES-31). Rows from before keys were
    bound to the issuer are opened too; new ones are not sealed that way.
    """

    def __init__(self, purpose: Purpose, keys: DeploymentKeys) -> None:
        self._ciphers = [AESGCM(key) for key in (*keys.derive(purpose), *keys.derive_unbound(purpose))]

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """Return `plain` sealed. It opens only with the same `bound_to`, so that it cannot be moved elsewhere."""
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[0].encrypt(nonce, plain, bound_to)

    def open(self, sealed: bytes, bound_to: bytes) -> bytes | None:
        """Return what was sealed, or None for what no secret we have sealed for this place."""
        nonce, rest = sealed[:_NONCE], sealed[_NONCE:]
        for cipher in self._ciphers:
            with contextlib.suppress(InvalidTag, ValueError):
                return cipher.decrypt(nonce, rest, bound_to)
        return None
