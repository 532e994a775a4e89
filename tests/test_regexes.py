"""Every regular expression of the package on a clock: none is slow on text a stranger may send (attack INJ-04)."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import signal
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from types import FrameType, ModuleType
from typing import Any, Final

import pytest

import routeguard
from tests.steady import slowness

_SIZE: Final = 8 * 1024
"""Bytes: enough for what is quadratic to take many times as long as the limit."""
_SECONDS: Final = 0.00625
_HEADS: Final = ("", "a/b", "a/b;a=", '"', "/", "a", "1", "1 ", "$2b$12$", "pbkdf2_sha256$1$", "http://a", "no-store,")
_UNITS: Final = (
    " ",
    "\t",
    " \t",
    ";",
    ",",
    "; ",
    ";  ",
    " ;",
    ";a",
    ";a=b",
    '; a="b"',
    ";a=",
    ", ",
    " ,",
    ",a",
    "a",
    "A",
    "1",
    "a.",
    ".",
    "-",
    "/",
    "//",
    ":",
    "=",
    "a=b;",
    '"',
    '""',
    "\\",
    '\\"',
    '"\\',
    "\\u",
    "$",
    "$1",
    "`",
    "[",
    "[0",
    "{",
    "}",
    "@",
    "%",
    "+",
    "_",
    "\x00",
    "\r\n",
    "\n",
    "Expected `",
    "[1] ",
    " [<>=] 1",
    "http://",
    "é",
    "\u2028",
)
_TAILS: Final = ("", "!")


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(routeguard.__path__, "routeguard."):
        yield importlib.import_module(found.name)


def _patterns(value: Any, seen: set[int], depth: int = 0) -> Iterator[re.Pattern[Any]]:
    """Yield patterns in a value, its containers and its classes."""
    if isinstance(value, re.Pattern):
        yield value
    elif depth < 4 and id(value) not in seen:
        seen.add(id(value))
        inner: Iterable[Any] = ()
        if isinstance(value, dict):
            inner = chain(value.keys(), value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            inner = value
        elif inspect.isclass(value) and value.__module__.startswith("routeguard"):
            inner = list(vars(value).values())
        for part in inner:
            yield from _patterns(part, seen, depth + 1)


def _all_patterns() -> dict[str, tuple[re.Pattern[Any], bool]]:
    """Return each pattern by its module and name, and whether it is searched for anywhere in a text."""
    found: dict[str, tuple[re.Pattern[Any], bool]] = {}
    for module in _modules():
        source = inspect.getsource(module)
        for name, value in list(vars(module).items()):
            searched = re.search(rf"\b{name}\.(?:search|sub|subn|split|findall|finditer)\b", source) is not None
            for number, pattern in enumerate(_patterns(value, set())):
                label = f"{module.__name__.removeprefix('routeguard.')}.{name}-{number}"
                if searched or pattern not in {one for one, _ in found.values()}:
                    found[label] = pattern, searched
    return found


def _slow(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError


def _took(pattern: re.Pattern[Any], text: Any, *, searched: bool) -> float:
    """Return the seconds of a match, or of all in the text; two are the most that is waited."""
    began = time.thread_time()
    signal.setitimer(signal.ITIMER_REAL, 2.0)
    try:
        pattern.fullmatch(text)
        if searched:
            pattern.findall(text)
    except TimeoutError:
        return 2.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return time.thread_time() - began


def test_the_walk_finds_the_regexes():
    found = _all_patterns()
    assert len(found) > 30
    assert found["foundation.web.body._MEDIA_TYPE-0"][1] is False
    assert found["foundation.mail.protocol._CONTROL-0"][1] is True


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that interrupts a match")
@pytest.mark.parametrize(("pattern", "searched"), [pytest.param(*one, id=at) for at, one in _all_patterns().items()])
def test_a_regex_is_fast_on_any_text(pattern: re.Pattern[Any], searched: bool):
    """INJ-04"""
    before = signal.signal(signal.SIGALRM, _slow)
    try:
        for head, unit, tail in ((h, u, t) for h in _HEADS for u in _UNITS for t in _TAILS):
            # Short first: what is exponential shows in a hundred characters, and costs the test a second only.
            for size in (100, _SIZE):
                text: Any = head + unit * (size // len(unit)) + tail
                if isinstance(pattern.pattern, bytes):
                    text = text.encode("utf-8")
                took = _took(pattern, text, searched=searched)
                if _SECONDS <= took < 1.0:
                    # Or is it the machine? What is slow by itself is slow every time.
                    took = min(_took(pattern, text, searched=searched) / slowness() for _ in range(4))
                assert took < _SECONDS, f"{head!r} + {unit!r} * n + {tail!r}: {took:.3f} s for {len(text)} characters"
    finally:
        signal.signal(signal.SIGALRM, before)
