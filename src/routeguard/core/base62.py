"""Random text of letters and digits with a checksum: secrets that people copy, and that scanners can look for."""

from __future__ import annotations

import secrets
import string
from typing import Final
from zlib import crc32

CHECKSUM_LENGTH: Final = 6
"""Characters that hold 32 bits."""
SECRET_LENGTH: Final = 43
"""Characters that hold 256 bits."""

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase


def random_text(length: int) -> str:
    """Return `length` random letters and digits, of almost six bits each."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def checksum(text: str) -> str:
    """Return the CRC-32 (ISO 3309, as in zlib) of an ASCII text, the highest digit first.

    It tells a slip of the hand offline, and proves nothing.
    """
    number, digits = crc32(text.encode("ascii")), ""
    for _ in range(CHECKSUM_LENGTH):
        number, rest = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[rest] + digits
    return digits
