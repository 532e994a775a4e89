"""E-mail addresses and names of people: made one spelling, then checked, in time linear in their length."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

import idna

from routeguard.users.models import NAME_LENGTH
from routeguard.users.problems import invalid

MAXIMUM_LENGTH: Final = 254
"""Characters; RFC 5321 section 4.5.3.1 leaves that many for an address."""
_LOCAL_LENGTH: Final = 64
_ATEXT: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~")
_HOST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_JOINERS: Final = frozenset("\u200c\u200d")


@dataclass(frozen=True, slots=True)
class Email:
    """An address in its one spelling.

    `text` is what is stored and mailed to; `key` is equal for spellings of one mailbox and unique among users.
    """

    text: str
    key: str


def parse_email(text: str) -> Email | None:
    """Read an address (RFC 5321 `dot-atom@domain`, RFC 5891 domains), or return None when it is not one.

    Normalised once, then checked, and never normalised again. A character that only becomes an ASCII one by
    normalising or lower-casing (full-width @, Kelvin sign, ideographic full stop, dotted capital I) is refused:
    two readers would take it for two mailboxes (attacks ML-10, ML-11). International domains are kept in their ASCII
    form, where look-alikes show; local parts are ASCII, since few servers take others (RFC 6531). The key ignores
    case.
    """
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


def read_email(text: str, *, field: str = "email") -> Email:
    """Read an address from a request. Raises ProblemError 422 naming `field`."""
    email = parse_email(text)
    if email is None:
        raise invalid(field, "This is not an e-mail address.").error()
    return email


def read_name(text: str, *, field: str = "name") -> str:
    """Read a person's name as one line of text in NFC. Raises ProblemError 422.

    Control characters would become header lines (attack ML-12), and direction marks would make the mail around the
    name read otherwise.
    """
    if len(text) > NAME_LENGTH:
        raise invalid(field, f"At most {NAME_LENGTH} characters.").error()
    name = unicodedata.normalize("NFC", text.strip(" "))
    for character in name:
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in _JOINERS:
            raise invalid(field, "This field holds a character that is not allowed.").error()
    return name


def _folds_to_ascii(character: str) -> bool:
    folded = unicodedata.normalize("NFKC", character) + character.lower()
    return any(part.isascii() for part in folded)


def _is_local(local: str) -> bool:
    return len(local) <= _LOCAL_LENGTH and all(atom and _ATEXT.issuperset(atom) for atom in local.split("."))


def _host(domain: str) -> str | None:
    """Return a domain with at least two labels as lower-case ASCII, or None."""
    if not domain.isascii():
        try:
            domain = idna.encode(domain.lower(), strict=True).decode("ascii")
        except idna.IDNAError:
            return None
    labels = domain.lower().split(".")
    if len(labels) < 2 or not all(map(_is_label, labels)) or labels[-1].isdigit():
        return None
    return ".".join(labels)


def _is_label(label: str) -> bool:
    return 0 < len(label) < 64 and label[0] != "-" and label[-1] != "-" and _HOST.issuperset(label)
