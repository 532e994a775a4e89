"""Which passwords may be chosen: by length and by not being guessed first, and by nothing else.

NIST SP 800-63B-4 section 3.1.1.2: a list of common passwords and words of the context, no rules of composition, and no
expiry. It is asked of new passwords only, so a longer list locks no user out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from routeguard.core.problem import VALIDATION_FAILED
from routeguard.identity.passwords.common import is_common, look_alikes
from routeguard.identity.passwords.problems import password_rejected

if TYPE_CHECKING:
    from routeguard.identity.passwords.models import PasswordSettings

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
        """Raise ProblemError 422 password-rejected with all reasons for a normalised password that is not accepted.

        `context` are the user's address and name. Characters of every kind, blanks included, are welcome.
        """
        settings = self.settings
        reasons: list[str] = []
        if len(password) < settings.minimum_length:
            reasons.append("too-short")
        # Folded, so that capitals do not make a known password a new one.
        folded = password.casefold()
        if _is_context(folded, _words_of((*context, *self._words))):
            reasons.append("contextual")
        elif is_common(folded):
            reasons.append("common")
        if reasons:
            raise password_rejected(reasons, field, minimum=settings.minimum_length).error()


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
    """Return whether a password is context and little else: nothing but digits and signs, or under four characters.

    The words count with their letters replaced by look-alikes and backwards, too.
    """
    both = [*words, *(word[::-1] for word in words if len(word) >= _CORE)]
    return any(_is_little(text, both) for text in look_alikes(folded))


def _is_little(text: str, words: list[str]) -> bool:
    rest = text
    for word in words:
        rest = rest.replace(word, "")
    if rest == text:
        return False
    return len(rest) < _CORE or not any(character.isalpha() for character in rest)
