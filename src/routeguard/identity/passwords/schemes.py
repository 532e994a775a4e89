"""Password hashes of other systems, verified once and then replaced by our own.

Each verifier takes the encoded hash and the password as bytes and returns a bool; it raises HashError for a hash that
cannot be read or would cost too much to check. What a hash costs is the product of its factors, and that is bounded to
some seconds of a core, so that one row cannot stop the service.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from binascii import Error as BinasciiError
from collections.abc import Callable
from typing import Final

from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import verify_secret

from routeguard.core.secret import equal

_MOST_MEMORY: Final = 1024 * 1024
"""KiB one hash may take to check: 1 GiB."""
_MOST_PASSES: Final = 64
_MOST_LANES: Final = 64
_MOST_ARGON2_WORK: Final = 4 * _MOST_MEMORY
"""KiB times passes: 1 GiB four times, or 64 MiB 64 times (RFC 9106 section 4 asks for 64 MiB three times)."""
_MOST_SCRYPT_WORK: Final = 1 << 23
"""N times r times p: 1 GiB once (RFC 7914 section 2)."""
_MOST_BCRYPT_COST: Final = 17
_MOST_ITERATIONS: Final = 10_000_000
"""PBKDF2 iterations, over all blocks: each block of a hash longer than its digest takes all of them (RFC 8018)."""
_BCRYPT_BYTES: Final = 72
_MOST_LENGTH: Final = 1000

_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_DJANGO_PBKDF2: Final = re.compile(r"pbkdf2_(sha1|sha256)\$(\d{1,8})\$([^$]{1,128})\$([A-Za-z0-9+/=]{8,128})")
_PASSLIB_PBKDF2: Final = re.compile(
    r"\$pbkdf2(?:-(sha1|sha256|sha512))?\$(\d{1,8})\$([A-Za-z0-9./]{0,200})\$([A-Za-z0-9./]{8,128})"
)
_DJANGO_SCRYPT: Final = re.compile(r"scrypt\$(\d{1,8})\$([^$]{1,128})\$(\d{1,3})\$(\d{1,3})\$([A-Za-z0-9+/=]{8,128})")
_PASSLIB_SCRYPT: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]{0,200})\$([A-Za-z0-9+/]{8,128})"
)


class HashError(ValueError):
    """A stored hash that no password matches: corrupt, of an unknown scheme, or too costly. Its text is not in here."""


def verify(encoded: str, password: bytes) -> bool:
    """Return whether `password` is the one behind `encoded`. Raises HashError."""
    if len(encoded) > _MOST_LENGTH:
        raise HashError("over-long")
    for prefix, check in _SCHEMES:
        if encoded.startswith(prefix):
            try:
                return check(encoded, password)
            except (BinasciiError, OverflowError, MemoryError) as error:
                raise HashError(prefix) from error
    raise HashError("unknown scheme")


def _argon2(encoded: str, password: bytes) -> bool:
    encoded = encoded.removeprefix("argon2$").replace("argon2", "$argon2", 1) if encoded[0] != "$" else encoded
    try:
        parameters = extract_parameters(encoded)
    except InvalidHashError as error:
        raise HashError("argon2") from error
    if (
        parameters.memory_cost > _MOST_MEMORY
        or parameters.time_cost > _MOST_PASSES
        or parameters.memory_cost * parameters.time_cost > _MOST_ARGON2_WORK
        or parameters.parallelism > _MOST_LANES
    ):
        raise HashError("argon2 with too high a cost")
    try:
        return verify_secret(encoded.encode("ascii"), password, parameters.type)
    except VerifyMismatchError:
        return False
    except (VerificationError, UnicodeEncodeError) as error:
        raise HashError("argon2") from error


def _bcrypt(encoded: str, password: bytes) -> bool:
    match = _BCRYPT.fullmatch(encoded)
    if match is None or not 4 <= int(match[1]) <= _MOST_BCRYPT_COST:
        raise HashError("bcrypt")
    # bcrypt sees 72 bytes: two long passwords would open each other's accounts (attack PW-05). A user with such a
    # one resets it.
    if len(password) > _BCRYPT_BYTES:
        return False
    try:
        import bcrypt  # noqa: PLC0415 - the extra `hashes`
    except ImportError as error:
        raise HashError("bcrypt: install routeguard[hashes]") from error
    try:
        return bcrypt.checkpw(password, encoded.encode("ascii"))
    except ValueError as error:
        raise HashError("bcrypt") from error


def _django_bcrypt(encoded: str, password: bytes) -> bool:
    scheme, _, inner = encoded.partition("$")
    if scheme == "bcrypt_sha256":
        password = hashlib.sha256(password).hexdigest().encode()
    return _bcrypt(inner, password)


def _django_pbkdf2(encoded: str, password: bytes) -> bool:
    match = _fullmatch(_DJANGO_PBKDF2, encoded)
    return _pbkdf2(match[1], password, match[3].encode(), int(match[2]), b64decode(match[4], validate=True))


def _passlib_pbkdf2(encoded: str, password: bytes) -> bool:
    match = _fullmatch(_PASSLIB_PBKDF2, encoded)
    salt, expected = (_unpadded(match[part].replace(".", "+")) for part in (3, 4))
    return _pbkdf2(match[1] or "sha1", password, salt, int(match[2]), expected)


def _pbkdf2(name: str, password: bytes, salt: bytes, iterations: int, expected: bytes) -> bool:
    blocks = -(-len(expected) // hashlib.new(name).digest_size)
    if not 0 < iterations <= _MOST_ITERATIONS // max(blocks, 1) or len(expected) < 16:
        raise HashError("pbkdf2")
    return equal(hashlib.pbkdf2_hmac(name, password, salt, iterations, len(expected)), expected)


def _django_scrypt(encoded: str, password: bytes) -> bool:
    match = _fullmatch(_DJANGO_SCRYPT, encoded)
    expected = b64decode(match[5], validate=True)
    return _scrypt(password, match[2].encode(), (int(match[1]), int(match[3]), int(match[4])), expected)


def _passlib_scrypt(encoded: str, password: bytes) -> bool:
    match = _fullmatch(_PASSLIB_SCRYPT, encoded)
    costs = (1 << min(int(match[1]), 40), int(match[2]), int(match[3]))
    return _scrypt(password, _unpadded(match[4]), costs, _unpadded(match[5]))


def _scrypt(password: bytes, salt: bytes, costs: tuple[int, int, int], expected: bytes) -> bool:
    n, r, p = costs
    memory = 128 * n * r
    if memory > _MOST_MEMORY * 1024 or not 0 < p <= _MOST_LANES or n * r * p > _MOST_SCRYPT_WORK or len(expected) < 16:
        raise HashError("scrypt")
    # What OpenSSL asks for beside the N blocks; more than 2 GiB - 1 cannot be said to it.
    beside = 128 * r * (p + 2) + 64 * 1024
    try:
        made = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, dklen=len(expected), maxmem=memory + beside)
    except ValueError as error:
        raise HashError("scrypt") from error
    return equal(made, expected)


def _fullmatch(pattern: re.Pattern[str], encoded: str) -> re.Match[str]:
    match = pattern.fullmatch(encoded)
    if match is None:
        raise HashError(pattern.pattern[:12])
    return match


def _unpadded(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4), validate=True)


_SCHEMES: Final[tuple[tuple[str, Callable[[str, bytes], bool]], ...]] = (
    ("$argon2", _argon2),
    ("argon2$argon2", _argon2),
    ("$2", _bcrypt),
    ("bcrypt$", _django_bcrypt),
    ("bcrypt_sha256$", _django_bcrypt),
    ("pbkdf2_", _django_pbkdf2),
    ("$pbkdf2", _passlib_pbkdf2),
    ("scrypt$", _django_scrypt),
    ("$scrypt$", _passlib_scrypt),
)
