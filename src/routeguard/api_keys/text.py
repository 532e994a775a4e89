"""The text of an API key: ``rg_<env>_<id>_<secret><checksum>``, told from anything else without asking a store."""

from __future__ import annotations

import re
from binascii import crc32
from secrets import choice
from typing import Final, Literal, NamedTuple

from routeguard.api_keys.models import ID_PREFIX

Environment = Literal["live", "test"]

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 22
_SECRET_LENGTH: Final = 43
"""Characters of base62 that hold 256 bits."""
_CHECKSUM_LENGTH: Final = 6
"""Characters of base62 that hold 32 bits."""
LENGTH: Final = len("rg_live_") + _ID_LENGTH + len("_") + _SECRET_LENGTH + _CHECKSUM_LENGTH

PATTERN: Final = rf"rg_(?:live|test)_[0-9A-Za-z]{{{_ID_LENGTH}}}_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}"
"""What a secret scanner looks for; see docs/reference/api-keys.md."""

_KEY: Final = re.compile(
    rf"rg_(live|test)_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})[0-9A-Za-z]{{{_CHECKSUM_LENGTH}}}",
    re.ASCII,
)


class ParsedKey(NamedTuple):
    """A text that has the form of a key. Whether it is one, only the store knows."""

    environment: Environment
    id: str
    """With its prefix: `key_...`."""
    secret: str

    def __repr__(self) -> str:
        return f"ParsedKey({self.environment}, {self.id})"


def parse_key(text: str | bytes) -> ParsedKey | None:
    """Return the parts of a key; None for a wrong length, alphabet, prefix or checksum. Pure, linear, bounded.

    A typo and a made-up key end here, without a question to the store (attack KEY-16).
    """
    if len(text) != LENGTH:
        return None
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    match = _KEY.fullmatch(text)
    if match is None or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    environment: Environment = "live" if match[1] == "live" else "test"
    return ParsedKey(environment, ID_PREFIX + match[2], match[3])


def new_id() -> str:
    """Return the id of a new key: `key_` and over 128 random bits, in letters and digits only."""
    return ID_PREFIX + _random(_ID_LENGTH)


def new_key(environment: Environment, key_id: str) -> str:
    """Return the text of a key with a new secret of over 256 bits."""
    body = f"rg_{environment}_{key_id.removeprefix(ID_PREFIX)}_{_random(_SECRET_LENGTH)}"
    return body + _checksum(body)


def _random(length: int) -> str:
    return "".join(choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    """Return the CRC-32 (ISO 3309, as in zlib) of the text before it, in base62, the highest digit first."""
    number, digits = crc32(body.encode("ascii")), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, rest = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[rest] + digits
    return digits
