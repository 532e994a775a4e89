"""Passwords that are guessed first: a packed list, and what people make of its words.

The list is in this package, so that no password or part of one leaves the process. It is read when the first password
is judged, kept as sorted text of one megabyte, and searched by halving.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from functools import cache
from importlib.resources import files
from typing import Final

SHORTEST: Final = 8
"""Characters of the shortest password in the list; its words are shorter."""
_LONGEST: Final = 64
"""Longer ones are not judged: what they are made of would cost more to find out, and they are not guessed first."""
_BARE: Final = 5
"""Characters that must be left for a password without its signs to be judged as one."""
_AFFIX: Final = 9
"""Characters around a word that are tried as something people add."""
_PUNCTUATION: Final = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ "
_SIGNS: Final = re.compile(f"[{re.escape(_PUNCTUATION)}]+")
_SIGNED: Final = re.compile(f"[{re.escape(_PUNCTUATION)}]{{0,3}}([a-z0-9]*)[{re.escape(_PUNCTUATION)}]{{0,3}}")
_LETTER: Final = re.compile(r"[^\W\d_]|[@$€]")
"""Without a letter, digits are a number, and no look-alikes of one."""
_NUMBER: Final = re.compile(r"[0-9]{0,3}|(?:(?:19|20)[0-9]{2})+", re.ASCII)
_DAY, _MONTH = "(?:0[1-9]|[12][0-9]|3[01])", "(?:0[1-9]|1[0-2])"
_DATE: Final = re.compile(
    f"(?:{_DAY}{_MONTH}|{_MONTH}{_DAY})(?:(?:19|20)?[0-9]{{2}})|(?:19|20)[0-9]{{2}}(?:{_DAY}{_MONTH}|{_MONTH}{_DAY})",
    re.ASCII,
)
# Letters people replace by what looks like them; `1` and its like stand for two.
_LEET: Final = [str.maketrans("034578962@$€+(1!|", "oeastbgbzaset" + "c" + letter * 3) for letter in ("i", "l")]
_UNSHIFTED: Final = str.maketrans("!@#$%^&*()_+", "1234567890-=")
_LINES: Final = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890-=",
    "qwertyuiop[]",
    "asdfghjkl;'",
    "zxcvbnm,./",
    "azertyuiop",
    "qsdfghjklm",
    "wxcvbn",
    "qwertzuiopü",
    "yxcvbnm",
    "йцукенгшщзхъ",
    "фывапролджэ",
    "ячсмитьбю",
    "1qaz",
    "2wsx",
    "3edc",
    "4rfv",
    "5tgb",
    "6yhn",
    "7ujm",
    "8ik,",
    "9ol.",
    "0p;/",
    "147",
    "258",
    "369",
    "2580",
    "1590",
    "357",
    "159",
    "753",
)
"""Rows, columns and diagonals of keyboards, and the alphabet."""


def is_common(password: str) -> bool:
    """Return whether a password, casefolded, is in the list or made of one word of it as people make them.

    That is: with digits, years, dates or signs around it (``summer2024!``), with look-alikes (``p@ssw0rd``), without
    its accents, with the shift key held for digits, backwards, repeated, or walked on the keyboard (``1qaz2wsx``). Two
    words that have nothing to do with each other are not common, whatever they are.
    """
    if not SHORTEST <= len(password) <= _LONGEST:
        return False
    plain = "".join(one for one in unicodedata.normalize("NFKD", password) if not unicodedata.combining(one))
    texts = {password, plain, plain.translate(_UNSHIFTED)}
    bare = _SIGNS.sub("", plain)
    if len(bare) >= max(_BARE, len(password) // 2):
        texts.add(bare)
    return any(_is_made(text) for text in texts)


def common_passwords() -> frozenset[str]:
    """Return the passwords of the list, without what is made of them."""
    return frozenset(_lists()[0].decode().split("\n"))


def look_alikes(text: str) -> set[str]:
    """Return a text, and what it reads as when signs and digits stand for letters, where it has any letter."""
    return {text, *(text.translate(table) for table in _LEET)} if _LETTER.search(text) else {text}


def _is_made(text: str) -> bool:
    return _is_pattern(text) or any(_is_known(core) for core in _cores(text))


def _cores(text: str) -> set[str]:
    """Return what may be the word of a password: the text, and the text without what is added before and after."""
    if text.isdigit():
        return {text}
    size = len(text)
    first = max((one for one in range(min(_AFFIX, size - 2)) if _is_affix(text[:one])), default=0)
    signs = size - len(text.lstrip(_PUNCTUATION))
    ends = [end for end in range(size, max(2, size - _AFFIX), -1) if _is_affix(text[end:])]
    return {text[begin:end] for begin in (0, signs, first) for end in ends if end - begin >= 3}


def _is_affix(text: str) -> bool:
    """Whether people add it: up to three signs around a short number, a year, a date or a run."""
    match = _SIGNED.fullmatch(text)
    if match is None:
        return False
    inner = match[1]
    return bool(_NUMBER.fullmatch(inner) or _DATE.fullmatch(inner)) or _is_run(inner)


def _is_known(core: str) -> bool:
    """Whether a word is in the list: as it is, with its look-alikes replaced, backwards, or repeated."""
    unit = _unit(core)
    found = {core, unit[::-1], *look_alikes(unit)}
    return any(_is_listed(one) for one in found) or len(unit) < min(SHORTEST, len(core))


def _is_pattern(text: str) -> bool:
    """Whether there is no word in it: a date, a run, two runs woven into each other, or one short thing repeated."""
    if len(text) < SHORTEST:
        return False
    unit = _unit(text)
    if len(unit) < SHORTEST or (unit != text and _is_listed(unit)):
        return True
    evens, odds = text[::2], text[1::2]
    return bool(_DATE.fullmatch(text) or _NUMBER.fullmatch(text)) or _is_run(text) or (_is_run(evens) and _is_run(odds))


def _unit(text: str) -> str:
    """Return what `text` repeats at least twice, the last time perhaps in part; itself, when it repeats nothing."""
    size = len(text)
    period = next((one for one in range(1, size // 2 + 1) if text[one:] == text[: size - one]), size)
    return text[:period]


def _is_run(text: str) -> bool:
    """Whether all of it lies on lines of a keyboard or of the alphabet, three characters and more on each."""
    place, size = 0, len(text)
    while place < size:
        if not _is_step(text[place : place + 3]):
            return False
        place += 3
        while place < size and _is_step(text[place - 2 : place + 1]):
            place += 1
    return size > 0


def _is_step(three: str) -> bool:
    return three in _steps() or (len(three) == 3 and three == three[0] * 3)


@cache
def _steps() -> frozenset[str]:
    both = [line for one in _LINES for line in (one, one[::-1])]
    return frozenset(line[place : place + 3] for line in both for place in range(len(line) - 2))


def _is_listed(text: str) -> bool:
    passwords, words = _lists()
    return _holds(passwords if len(text) >= SHORTEST else words, text.encode("utf-8", "replace"))


def _holds(lines: bytes, wanted: bytes) -> bool:
    """Whether `wanted` is one of the sorted lines."""
    low, high = 0, len(lines)
    while low < high:
        middle = (low + high) // 2
        start = lines.rfind(b"\n", low, middle) + 1 or low
        end = lines.find(b"\n", middle, high)
        end = high if end == -1 else end
        line = lines[start:end]
        if line == wanted:
            return True
        if line < wanted:
            low = end + 1
        else:
            high = start
    return False


@cache
def _lists() -> tuple[bytes, bytes]:
    """Return the passwords, and the words that longer ones are made of: a sorted line each."""
    packed = files("routeguard.identity.passwords").joinpath("common.bin").read_bytes()
    passwords, _, words = zlib.decompress(packed).partition(b"\n\n")
    return passwords, words
