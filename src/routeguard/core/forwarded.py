"""The `Forwarded` header field (RFC 7239), read from the end, where the nearest proxy wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

_LONGEST: Final = 4096
"""Characters of a line that are read, counted from its end: some forty hops."""

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED: Final = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_PAIR: Final = re.compile(rf"[ \t]*+(?:({_WORD})=({_WORD}|{_QUOTED}))?[ \t]*+(;|\Z)")
"""One `[ forwarded-pair ]` and the semicolon after it, if there is one (RFC 7239 section 4)."""
_MARK: Final = re.compile(r'(?<!\\)\\*+"|,')
"""What may begin or end an element: a quote, with the backslashes that may make it a character of a string; a comma."""
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_PORT: Final = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_NODE: Final = re.compile(rf"(?:([0-9.]+)|\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\]){_PORT}")
"""`nodename [ ":" node-port ]` (section 6) whose name is an address: IPv6 in brackets, IPv4 without."""


def forwarded_for(lines: Sequence[str]) -> Iterator[str | None]:
    """Yield the address of each element's `for`, nearest hop first, from the values of all `Forwarded` lines.

    None stands for an element without a readable address: `unknown`, an obfuscated name, no `for`, an empty element,
    or one that is not of the grammar of RFC 7239 section 4 (a parameter twice, an unquoted IPv6 address). What is to
    the right of it was read before, and is not changed by anything to the left: a client cannot open a quoted string
    that swallows what a proxy appends. A comma or semicolon inside a quoted string separates nothing (attack RL-02).
    """
    for line in reversed(lines):
        for element in _elements(line):
            yield None if element is None else _address(element)


def _elements(line: str) -> Iterator[str | None]:
    """Yield the elements of one line, last first; None for what is cut off or not delimited, which ends the line."""
    text = line[-_LONGEST:]
    end, quoted = len(text), False
    for mark in reversed(list(_MARK.finditer(text))):
        if mark[0] == ",":
            if not quoted:
                yield text[mark.end() : end]
                end = mark.start()
        elif len(mark[0]) % 2 == 1:
            quoted = not quoted
        elif not quoted:
            yield None
            return
    yield None if quoted or len(line) > _LONGEST else text[:end]


def _address(element: str) -> str | None:
    """Return the address of the element's `for` as text, or None."""
    pairs: dict[str, str] = {}
    place, separator = 0, ";"
    while separator:
        pair = _PAIR.match(element, place)
        if pair is None:
            return None
        name, value, separator = pair.groups()
        place = pair.end()
        if name is None:
            continue
        # Of two equal names one reader takes the first and the next the last (section 4: not more than once).
        if name.lower() in pairs:
            return None
        pairs[name.lower()] = value
    node = pairs.get("for", "")
    if node.startswith('"'):
        node = _ESCAPED.sub(r"\1", node[1:-1])
    found = _NODE.fullmatch(node)
    return None if found is None else found[1] or found[2]
