"""Which passwords may be chosen: by length and by not being known, and by nothing else."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from routeguard.core.problem import VALIDATION_FAILED
from routeguard.passwords.problems import password_rejected

if TYPE_CHECKING:
    from routeguard.passwords.models import PasswordSettings

ENDINGS: Final = tuple("- 1 2 7 01 11 12 13 22 69 77 99 123 321 1234 12345 2000".replace("-", "").split(" "))
_ROWS: Final = ("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_LONGEST_RUN: Final = 16
_SHORTEST_WORD: Final = 3
_LONGEST_WORD: Final = 64
_MOST_WORDS: Final = 16
_CORE: Final = 4
"""Characters a password must have beside the words of its context."""


def normalize(password: str, settings: PasswordSettings, *, field: str = "password") -> str:
    """Return a password in the one spelling that is hashed: NFKC, applied once, at setting and at checking alike.

    Two keyboards may send one password as different code points (attack PW-03). Raises ProblemError 422, before any
    costly work, for one over the maximum length (attack PW-02), and for NUL or half a surrogate pair, which some
    hashes read as an end (attack PW-04).
    """
    if len(password) > settings.maximum_length:
        raise password_rejected(["too-long"], field, maximum=settings.maximum_length).error()
    if "\x00" in password or any("\ud800" <= character <= "\udfff" for character in password):
        detail = "This field holds a character that is not allowed."
        raise VALIDATION_FAILED(errors=[{"pointer": f"/{field}", "detail": detail}]).error()
    return unicodedata.normalize("NFKC", password)


class PasswordPolicy:
    """Judges passwords that are being set. Checking one at sign-in asks nothing of this."""

    def __init__(self, settings: PasswordSettings, *, words: Iterable[str] = ()) -> None:
        self.settings = settings
        self._words = tuple(words) + settings.context_words

    def check(self, password: str, *, context: Iterable[str] = (), field: str = "password") -> None:
        """Raise ProblemError 422 password-rejected with all reasons for a normalised password that is no good.

        `context` are the user's address and name. Characters of every kind, blanks included, are welcome.
        """
        settings = self.settings
        reasons: list[str] = []
        if len(password) < settings.minimum_length:
            reasons.append("too-short")
        # Folded, so that capitals do not make a known password a new one.
        folded = password.casefold()
        if folded in common_passwords():
            reasons.append("common")
        elif _is_context(folded, _words_of((*context, *self._words))):
            reasons.append("contextual")
        if reasons:
            raise password_rejected(reasons, field, minimum=settings.minimum_length).error()


@cache
def common_passwords() -> frozenset[str]:
    """Return the refused passwords of 8 and more characters: lists of known ones, words with endings, and runs.

    A file in this package, so that no password or part of one leaves the process.
    """
    text = files("routeguard.passwords").joinpath("common.txt").read_text("utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    whole, _, words = lines.partition("\n\n")
    found = set(whole.split())
    found.update(word + ending for word in words.split() for ending in ENDINGS)
    found.update(word + word for word in words.split())
    for row in _ROWS:
        for line in (row, row[::-1]):
            starts = range(len(line) - 7)
            found.update(line[start:end] for start in starts for end in range(start + 8, len(line) + 1))
    for character in "abcdefghijklmnopqrstuvwxyz0123456789*.-_!":
        found.update(character * length for length in range(8, _LONGEST_RUN + 1))
    return frozenset(password for password in found if len(password) >= 8)


def _words_of(sources: Iterable[str]) -> list[str]:
    """Return the words of addresses, names and hosts, longest first and few: the cost is bounded (attack PW-15)."""
    words: set[str] = set()
    for source in sources:
        text = source[:_LONGEST_WORD].casefold()
        whole = text.partition("@")[0]
        separated = "".join(character if character.isalnum() else " " for character in text)
        words.update(word for word in (whole, *separated.split()) if len(word) >= _SHORTEST_WORD)
    return sorted(words, key=lambda word: (-len(word), word))[:_MOST_WORDS]


def _is_context(folded: str, words: list[str]) -> bool:
    """Return whether a password is context and little else: nothing but digits and signs, or under four characters."""
    rest = folded
    for word in words:
        rest = rest.replace(word, "")
    if rest == folded:
        return False
    return len(rest) < _CORE or not any(character.isalpha() for character in rest)
