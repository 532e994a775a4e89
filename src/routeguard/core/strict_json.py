"""JSON read one way only: whatever two parsers could understand differently is refused (RFC 8259, RFC 7493)."""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any, Final, NoReturn

MAXIMUM_DEPTH: Final = 64
"""Arrays and objects inside each other; far below where the interpreter's own stack would end."""
MAXIMUM_DIGITS: Final = 64
"""Digits of an integer. Turning digits into a number takes quadratic time (CVE-2020-10735, attack BODY-10)."""

TOO_DEEP: Final = "The JSON is nested too deeply."
"""The public sentence."""

# An unterminated string counts as one up to the end, so that every quote is visited once: linear whatever is sent.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACKETS: Final = b"[]{}"
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_OPENING: Final = frozenset(b"[{")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class JSONRefused(ValueError):
    """The bytes are not strict JSON. `str()` is a public sentence without any of the input."""


def load_json(data: bytes, *, max_depth: int = MAXIMUM_DEPTH) -> Any:
    """Return the one value that `data` (UTF-8 without a byte order mark) holds.

    Raises JSONRefused for what RFC 8259 does not allow, and also for members that occur twice (attack BODY-08), NaN
    and Infinity (BODY-09), integers over 64 digits and numbers beyond a double (BODY-10), lone surrogates in values
    or names (BODY-11) and nesting deeper than `max_depth`. Linear in the length of `data`.
    """
    if data.startswith(_BYTE_ORDER_MARK):
        raise JSONRefused("The JSON text begins with a byte order mark.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise JSONRefused("The JSON text is not UTF-8.") from None
    if is_too_deep(data, max_depth=max_depth):
        raise JSONRefused(TOO_DEEP)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError:
        raise JSONRefused("The body is not valid JSON.") from None
    except RecursionError:
        raise JSONRefused(TOO_DEEP) from None
    if _SURROGATE.search(data) is not None:
        _refuse_surrogates(value)
    return value


def is_too_deep(data: bytes, *, max_depth: int = MAXIMUM_DEPTH) -> bool:
    """Whether arrays and objects are nested deeper than `max_depth` in JSON, or in the beginning of it. Linear."""
    # Counting is far cheaper than looking, and short bodies cannot be deep.
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return False
    depth = 0
    for byte in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        if byte in _OPENING:
            depth += 1
            if depth > max_depth:
                return True
        else:
            depth -= 1
    return False


def _refuse_surrogates(value: Any) -> None:
    """Half a character is stored by some and refused by others: a 500 waiting in a database (attack BODY-11)."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise JSONRefused("A JSON string holds half of a surrogate pair.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    # Of two equal names one reader takes the first and the next the last: a check and its use would differ.
    if len(members) != len(pairs):
        raise JSONRefused("A JSON object holds a member twice.")
    return members


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > MAXIMUM_DIGITS:
        raise JSONRefused("A JSON number is too large.")
    return int(digits)


def _number(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise JSONRefused("A JSON number is too large.")
    return number


def _constant(name: str) -> NoReturn:  # noqa: ARG001 - NaN, Infinity or -Infinity: all refused alike
    raise JSONRefused("NaN and Infinity are not JSON.")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
)
