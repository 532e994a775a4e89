"""Content-Digest: what ties a body to the fields around it (RFC 9530)."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from typing import Final

from routeguard.core.secret import equal
from routeguard.foundation.signatures.models import SignatureError

_HASHES: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
_LONGEST: Final = 256
_MEMBER: Final = re.compile(r"(sha-256|sha-512)=:([A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==):", re.ASCII)


def content_digest(body: bytes) -> str:
    """Return the field value for a body, an empty one included (section 2)."""
    return f"sha-256=:{b64encode(hashlib.sha256(body).digest()).decode()}:"


def check_digest(value: str, body: bytes) -> None:
    """Raise SignatureError unless every digest in a Content-Digest field is that of `body`.

    SHA-256 and SHA-512 are known; another algorithm, or one named twice, is refused rather than passed over: what a
    sender thought was checked has to be (section 5 takes md5, sha and the checksums out of use).
    """
    if len(value) > _LONGEST:
        raise SignatureError("Content-Digest is too long")
    members = [_MEMBER.fullmatch(part) for part in value.split(", ")]
    found = {match[1]: match[2] for match in members if match is not None}
    if len(found) != len(members):
        raise SignatureError("Content-Digest cannot be read")
    for name, digest in found.items():
        # As text, not as bytes: base64 has several spellings of most digests, and only the canonical one passes.
        if not equal(digest, b64encode(_HASHES[name](body).digest())):
            raise SignatureError("Content-Digest is not that of the body")
