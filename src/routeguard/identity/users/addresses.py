"""E-mail addresses and names of people as requests give them, in time linear in their length."""

from __future__ import annotations

import unicodedata
from typing import Final

from routeguard.foundation.mail.addresses import Email, parse_email
from routeguard.identity.users.models import NAME_LENGTH
from routeguard.identity.users.problems import invalid

__all__ = ["Email", "parse_email", "read_email", "read_name"]

_JOINERS: Final = frozenset("\u200c\u200d")


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
