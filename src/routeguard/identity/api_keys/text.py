"""The text of an API key: ``rg_<env>_<id>_<secret><checksum>``, told from anything else without asking a store."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from routeguard.core.base62 import CHECKSUM_LENGTH, SECRET_LENGTH, checksum, random_text
from routeguard.identity.api_keys.models import ID_PREFIX

Environment = Literal["live", "test"]

_ID_LENGTH: Final = 22
LENGTH: Final = len("rg_live_") + _ID_LENGTH + len("_") + SECRET_LENGTH + CHECKSUM_LENGTH

PATTERN: Final = rf"rg_(?:live|test)_[0-9A-Za-z]{{{_ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
"""What a secret scanner looks for; see docs/reference/api-keys.md."""

_KEY: Final = re.compile(
    rf"rg_(live|test)_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})[0-9A-Za-z]{{{CHECKSUM_LENGTH}}}",
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
    if match is None or checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        return None
    environment: Environment = "live" if match[1] == "live" else "test"
    return ParsedKey(environment, ID_PREFIX + match[2], match[3])


def new_id() -> str:
    """Return the id of a new key: `key_` and over 128 random bits, in letters and digits only."""
    return ID_PREFIX + random_text(_ID_LENGTH)


def new_key(environment: Environment, key_id: str) -> str:
    """Return the text of a key with a new secret of over 256 bits."""
    body = f"rg_{environment}_{key_id.removeprefix(ID_PREFIX)}_{random_text(SECRET_LENGTH)}"
    return body + checksum(body)
