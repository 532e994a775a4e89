"""Secrets: made, compared, digested and never printed."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from enum import Enum, unique
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Sequence

MINIMUM_SECRET_BYTES: Final = 32
"""RFC 7518 section 3.2: a MAC key is at least as long as the hash it keys."""


@final
class Secret:
    """Bytes that do not show themselves in `repr`, logs or tracebacks."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | str) -> None:
        self._value = value.encode() if isinstance(value, str) else value

    def reveal(self) -> bytes:
        """Return the secret. Each call is a place a reviewer should look at."""
        return self._value

    def derive(self, purpose: str) -> bytes:
        """Return a 32-byte key for one purpose, so that no key serves two (attack SES-31, OPS-11).

        HKDF-Expand of RFC 5869 section 2.3 with one block; the input is already uniformly random. For secrets that
        belong to one client: what a deployment signs and seals is keyed by `DeploymentKeys`.
        """
        return hmac.digest(self._value, b"routeguard:" + purpose.encode() + b"\x01", "sha256")

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and equal(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__


@unique
class Purpose(Enum):
    """What the secret of a deployment keys. Each purpose has a key of its own (attack SES-31)."""

    SESSION_COOKIE = "session-cookie"
    CSRF = "csrf"
    REFRESH = "refresh-token"
    REFRESH_SUCCESSOR = "refresh-token-successor"
    ONE_TIME = "one-time-token"
    SIGNING_KEYS = "signing-keys"
    OUTBOX = "outbox"
    LOG_SUBJECT = "log-subject"


@final
class DeploymentKeys:
    """Derives the keys of one deployment: one for each purpose, bound to the issuer.

    Two deployments that share a secret, such as production and a copy of it for tests, share no key: neither accepts
    what the other signed or sealed (attack SES-31). Issuers are compared exactly, as RFC 8414 section 3.3 has it:
    another port, case or trailing slash is another deployment.
    """

    __slots__ = ("_issuer", "_secrets", "label")

    def __init__(self, issuer: str, secret: Secret, older: Sequence[Secret] = ()) -> None:
        """`older` are secrets that were replaced: their keys verify and open, and do not sign or seal."""
        self._issuer = issuer.encode()
        self._secrets = (secret, *older)
        self.label: Final = urlsafe_b64encode(digest(self._issuer)[:6]).decode("ascii")
        """Eight characters that name the issuer in stored rows, where several deployments share a database."""

    def derive(self, purpose: Purpose) -> tuple[bytes, ...]:
        """Return the 32-byte keys of a purpose, newest secret first.

        HKDF-Expand of RFC 5869 section 2.3 with one block; purpose and issuer are its `info`.
        """
        info = b"routeguard:" + purpose.value.encode() + b"\x00" + self._issuer + b"\x01"
        return tuple(hmac.digest(one.reveal(), info, "sha256") for one in self._secrets)

    def derive_unbound(self, purpose: Purpose) -> tuple[bytes, ...]:
        """Return the keys of a purpose as they were before keys were bound to the issuer, newest secret first.

        Only to open what is stored, and to recognize a credential that the store then decides about. A key of these
        proves nothing by itself: another deployment with the same secret has it too.
        """
        return tuple(one.derive(purpose.value) for one in self._secrets)

    def __repr__(self) -> str:
        return f"DeploymentKeys({self._issuer.decode()})"


def new_token(size: int = 32) -> str:
    """Return `size` random bytes (256 bits unless told) as unpadded base64url."""
    return secrets.token_urlsafe(size)


def digest(token: str | bytes) -> bytes:
    """Return the SHA-256 of a random token: what is stored instead of it (32 bytes).

    A plain hash suffices because the input has 256 bits of entropy; passwords go through argon2id.
    """
    return hashlib.sha256(token.encode() if isinstance(token, str) else token).digest()


def equal(left: bytes | str, right: bytes | str) -> bool:
    """Compare two secrets in time that depends on neither's content (attack WH-10, ASVS v5.0.0-11.2.4)."""
    if isinstance(left, str):
        left = left.encode("utf-8", "surrogatepass")
    if isinstance(right, str):
        right = right.encode("utf-8", "surrogatepass")
    return hmac.compare_digest(left, right)
