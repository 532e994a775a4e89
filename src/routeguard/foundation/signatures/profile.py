"""The one way services sign their calls to the identity service, and the least that it accepts."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from routeguard.core.secret import new_token
from routeguard.foundation.signatures.base import signature_base
from routeguard.foundation.signatures.digest import check_digest, content_digest
from routeguard.foundation.signatures.fields import Signature, read_signature
from routeguard.foundation.signatures.keys import is_signed, signing_key
from routeguard.foundation.signatures.models import Message, SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LIFE: Final = 60
"""Seconds a signature may live."""
TAG: Final = "routeguard"
"""Which protocol a signature was made for: one made for another does not count here (RFC 9421 section 7.2.7)."""
REQUIRED: Final = ("@method", "@authority", "@path", "@query", "content-digest")
"""What every signature covers; `content-type` as well where it is sent."""

_ALGORITHM: Final = "ed25519"
_LABEL: Final = "sig"
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ClientSigner:
    """Signs the calls of one registered client: ``ClientSigner.of(client_id, secret)``. Pure, and safe to share."""

    client_id: str
    key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def of(cls, client_id: str, secret: str) -> ClientSigner:
        """Make the key from the client's secret. Raises ValueError for other text, which is not in it."""
        return cls(client_id, signing_key(secret))

    def headers(self, message: Message, *, now: float) -> dict[str, str]:
        """Return the fields to add to a call: Content-Digest, Signature-Input and Signature. `now` in wall seconds.

        Call it again for every try: a nonce is accepted once, even where the first try was never answered.
        """
        return sign(message, key=self.key, keyid=self.client_id, created=int(now))


def sign(
    message: Message, *, key: Ed25519PrivateKey, keyid: str, created: int, nonce: str | None = None, life: int = LIFE
) -> dict[str, str]:
    """Return the three fields that sign a message, in lower case. Raises SignatureError for what cannot be signed.

    `life` is in seconds; `nonce` is made unless given. A Content-Digest that the message has already is replaced.
    """
    digest = content_digest(message.body)
    covered = replace(message, headers={**message.headers, "content-digest": digest})
    components = [*REQUIRED, "content-type"] if "content-type" in message.headers else REQUIRED
    listed = " ".join(f'"{name}"' for name in components)
    parameters = (
        f'({listed});created={created};expires={created + life};nonce="{nonce or new_token(18)}"'
        f';alg="{_ALGORITHM}";keyid="{keyid}";tag="{TAG}"'
    )
    value = b64encode(key.sign(signature_base(covered, components, parameters))).decode("ascii")
    fields = {"content-digest": digest, "signature-input": f"{_LABEL}={parameters}", "signature": f"{_LABEL}=:{value}:"}
    # Whatever is signed can be read: a client id with a quote in it would end its own parameter.
    require_profile(read_signature(fields["signature-input"], fields["signature"]), covered)
    return fields


def signature_of(message: Message) -> Signature:
    """Return the signature of a message if it covers what it has to. Nothing about it is verified yet.

    Raises SignatureError.
    """
    try:
        signature = read_signature(message.headers["signature-input"], message.headers["signature"])
    except KeyError:
        raise SignatureError("the message is not signed") from None
    require_profile(signature, message)
    return signature


def require_profile(signature: Signature, message: Message) -> None:
    """Raise SignatureError unless a signature covers the minimum and has every parameter (RFC 9421 section 7.2.1)."""
    needed = {*REQUIRED, "content-type"} if "content-type" in message.headers else {*REQUIRED}
    if not needed.issubset(signature.components):
        raise SignatureError("the signature does not cover all that it has to")
    # The algorithm is the key's. What the message says of it can only agree (section 3.2, step 6).
    if signature.alg not in {None, _ALGORITHM}:
        raise SignatureError("the signature names another algorithm than its key's")
    if signature.tag != TAG:
        raise SignatureError("the signature was made for another protocol")
    if not signature.keyid or signature.nonce is None or _NONCE.fullmatch(signature.nonce) is None:
        raise SignatureError("the signature has no key id, or no nonce of 16 to 64 letters")
    if signature.created is None or signature.expires is None:
        raise SignatureError("the signature does not say when it was made and until when it counts")
    if not 0 < signature.expires - signature.created <= LIFE:
        raise SignatureError("the signature would live longer than it may")


def require_current(signature: Signature, *, now: float, skew: float) -> None:
    """Raise SignatureError unless a signature counts at `now`; its maker's clock may be `skew` seconds ahead of ours.

    A clock that is behind spends of the signature's own life.
    """
    if signature.created is None or signature.expires is None:
        raise SignatureError("the signature does not say when it was made and until when it counts")
    if not signature.created - skew <= now < signature.expires:
        raise SignatureError("the signature is not yet, or no more, valid")


def verify(message: Message, signature: Signature, public_keys: Iterable[bytes]) -> None:
    """Raise SignatureError unless the message is the one that the owner of a key signed (RFC 9421 section 3.2).

    `public_keys` are Ed25519, 32 bytes each; two while a secret is being replaced. The body is compared with its
    digest, which the signature covers. Says nothing of time or nonce.
    """
    base = signature_base(message, signature.components, signature.parameters)
    if not any(is_signed(key, signature.value, base) for key in public_keys):
        raise SignatureError("the signature is not that of this message")
    if "content-digest" in signature.components:
        check_digest(message.headers["content-digest"], message.body)
