"""Recognizes what is an asymmetric key in some encoding, so that it never passes for an HMAC secret."""

from __future__ import annotations

import contextlib
import re
from base64 import urlsafe_b64decode
from binascii import unhexlify
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from routeguard.core.strict_json import JSONRefused, load_json

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAME: Final = re.compile(
    rb"-{4,5} ?BEGIN |BEGIN [A-Z0-9 ]{0,40}(?:KEY|CERTIFICATE)|<RSAKeyValue|PuTTY-User-Key-File"
    rb"|\b(?:ssh-(?:rsa|dss|ed25519|ed448)|(?:sk-)?ecdsa-sha2-)"
)
"""What stands around or before a key in a text file."""
_SSH_NAME: Final = re.compile(rb"\x00\x00\x00[\x03-\x40][a-z][a-z0-9@.-]{2,63}")
"""How a key of OpenSSH begins once its base64 is decoded: a name with its length (RFC 4253 section 6.6)."""
_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
_BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_POINT: Final = 0x04
_CURVES: Final[dict[int, tuple[ec.EllipticCurve, ...]]] = {
    65: (ec.SECP256R1(), ec.SECP256K1()),
    97: (ec.SECP384R1(),),
    133: (ec.SECP521R1(),),
}


def looks_public(value: bytes) -> bool:
    """Return whether everybody may know `value`: a key or certificate, as it is, without its frame, in base64 or hex.

    Attacks JWT-03, JWT-04: an attacker could sign with a public key as HMAC secret. Only the shape is looked at, so
    that a curve or an algorithm no library here knows is recognized too.
    """
    forms = {value, value.strip(), value.replace(b"\x00", b"")}
    for bom in _BOMS:
        forms |= {form.removeprefix(bom).replace(b"\x00", b"").strip() for form in tuple(forms)}
    return any(_is_key(form) or any(_is_key(inner) for inner in _decoded(form)) for form in forms)


def _decoded(form: bytes) -> Iterator[bytes]:
    """Yield what a text may stand for in hex and base64: the whole of it, and each of its words."""
    text = form.replace(b"\\r", b"").replace(b"\\n", b"")
    for word in {b"".join(text.split()), *text.split()[:64]}:
        for digits in (word.removeprefix(b"0x"), word.replace(b":", b"")):
            with contextlib.suppress(ValueError):
                yield unhexlify(digits)
        bare = word.translate(_URLSAFE).rstrip(b"=")
        with contextlib.suppress(ValueError):
            yield urlsafe_b64decode(bare + b"=" * (-len(bare) % 4))


def _is_key(value: bytes) -> bool:
    if _FRAME.search(value) or _SSH_NAME.match(value) or _is_json(value.strip()):
        return True
    # A file that was saved as text has a line's end after it.
    return any(_is_der(value.removesuffix(end)) for end in (b"", b"\n", b"\r\n")) or _is_point(value)


def _is_json(value: bytes) -> bool:
    if not value.startswith((b"{", b"[")):
        return False
    try:
        load_json(value)
    except JSONRefused:
        return False
    return True


def _is_der(value: bytes) -> bool:
    """Whether this is one DER or BER SEQUENCE that begins as keys and certificates do (X.690 section 8).

    SubjectPublicKeyInfo and certificates begin with a SEQUENCE, RSAPublicKey and private keys with an INTEGER. Random
    bytes have this shape less than once in 2^24.
    """
    outer = _element(value)
    if outer is None or outer[0] != _SEQUENCE or outer[2]:
        return False
    rest, count = outer[1], 0
    while rest:
        found = _element(rest)
        if found is None or (count == 0 and found[0] not in {_SEQUENCE, _INTEGER}):
            return False
        rest, count = found[2], count + 1
    return count > 1


def _element(value: bytes) -> tuple[int, bytes, bytes] | None:
    """Return tag, content and what follows of the first element, or None where it is not whole."""
    if len(value) < 2:
        return None
    length, start = value[1], 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4:
            return None
        start += size
        length = int.from_bytes(value[2:start])
    return (value[0], value[start : start + length], value[start + length :]) if len(value) >= start + length else None


def _is_point(value: bytes) -> bool:
    """Whether this is an uncompressed point of a common curve (SEC 1 section 2.3.3)."""
    if value[:1] != bytes([_POINT]):
        return False
    for curve in _CURVES.get(len(value), ()):
        with contextlib.suppress(ValueError, UnsupportedAlgorithm):
            ec.EllipticCurvePublicKey.from_encoded_point(curve, value)
            return True
    return False
