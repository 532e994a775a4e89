"""The one parser of e-mail addresses: whatever takes an address takes what this accepts, and nothing else."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Final

import idna

MAXIMUM_LENGTH: Final = 254
"""Characters; RFC 5321 section 4.5.3.1 leaves that many for an address."""
_LOCAL_LENGTH: Final = 64
# `atext` of RFC 5322 section 3.2.3, without `%` and `!`: mail servers read `user%host@gateway` and `host!user` as a
# route to the other host (Postfix does by default: allow_percent_hack, swap_bangpath).
_ATEXT: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789#$&'*+-/=?^_`{|}~")
_HOST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
# RFC 2047 section 2: `=?charset?encoding?text?=`. Mail software decodes it, also where the standard forbids it.
_ENCODED_WORD: Final = re.compile(r"=\?|\?=")
# What the WHATWG URL standard (section 3.5) takes for the last number of an IPv4 address.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Email:
    """An address in its one spelling.

    `text` is what is stored and mailed to; `key` is equal for spellings of one mailbox and unique among users.
    """

    text: str
    key: str


def parse_email(text: str) -> Email | None:
    """Read an address (RFC 5321 `dot-atom@domain`, RFC 5891 domains), or return None when it is not one.

    Refused is whatever two readers could take for two mailboxes:

    - what is legal only in quotes, comments and display names, source routes, address literals (RFC 5321 section
      4.1.2), and a second `@`;
    - encoded-words (RFC 2047): ``=?utf-8?q?e=40attacker.com?=@victim.com`` is ``e@attacker.com`` to software that
      decodes header fields, so that the proof of one mailbox would go to another;
    - `%` and `!`, by which some servers route, and a leading hyphen, which others read as an option;
    - characters that only become ASCII ones by normalising or lower-casing: full-width @, Kelvin sign, dotted
      capital I (attacks ML-10, ML-11).

    International domains are kept in their ASCII form, where look-alikes show. Local parts are ASCII, since few
    servers take others (RFC 6531). The key ignores case. Normalised once, then checked, and never normalised again.
    """
    address = _parse(text)
    return address if address is not None and "." in address.text.rpartition("@")[2] else None


def parse_sender(text: str) -> tuple[str, Email] | None:
    """Read the address mail comes from, bare or as ``Name <address>``. Returns (name, address), or None.

    The operator's own: it may also be at a host without a dot, such as ``localhost``.
    """
    name, found = parseaddr(text)
    # parseaddr skips over comments and whatever follows the first address; only the two plain forms are read.
    plain = text.strip() == found or (text.endswith(f"<{found}>") and text.count("<") == 1)
    address = _parse(found) if plain and name.isprintable() else None
    return None if address is None else (name, address)


def _parse(text: str) -> Email | None:
    text = text.strip(" ")
    # First, because everything below costs time by the character (attack INJ-04).
    if len(text) > MAXIMUM_LENGTH:
        return None
    if any(_folds_to_ascii(character) for character in text if character > "\x7f"):
        return None
    local, _, domain = text.rpartition("@")
    host = _host(unicodedata.normalize("NFKC", domain))
    if host is None or not _is_local(local):
        return None
    address = f"{local}@{host}"
    return Email(address, address.lower()) if len(address) <= MAXIMUM_LENGTH else None


def _folds_to_ascii(character: str) -> bool:
    folded = unicodedata.normalize("NFKC", character) + character.lower()
    return any(part.isascii() for part in folded)


def _is_local(local: str) -> bool:
    if len(local) > _LOCAL_LENGTH or local.startswith("-") or _ENCODED_WORD.search(local):
        return False
    return all(atom and _ATEXT.issuperset(atom) for atom in local.split("."))


def _host(domain: str) -> str | None:
    """Return a domain as lower-case ASCII, or None. ASCII labels are checked too: `xn--` may hold anything."""
    try:
        ascii_domain = idna.encode(domain.lower(), strict=True).decode("ascii")
    except idna.IDNAError:
        return None
    labels = ascii_domain.split(".")
    # A number at the end makes the whole an IPv4 address to some readers: `1.2.3.0x4`.
    if not all(map(_is_label, labels)) or _NUMBER.fullmatch(labels[-1]):
        return None
    return ascii_domain


def _is_label(label: str) -> bool:
    return 0 < len(label) < 64 and label[0] != "-" and label[-1] != "-" and _HOST.issuperset(label)
