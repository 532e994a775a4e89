"""The text of a key: told from anything else offline."""

from __future__ import annotations

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from routeguard.identity.api_keys.text import LENGTH, PATTERN, new_id, new_key, parse_key


def test_a_new_key_reads_back() -> None:
    key_id = new_id()
    text = new_key("live", key_id)
    parsed = parse_key(text)
    assert parsed == parse_key(text.encode())
    assert parsed is not None
    assert (parsed.environment, parsed.id) == ("live", key_id)
    assert len(text) == LENGTH == 80
    assert re.fullmatch(PATTERN, text)
    assert parsed.secret not in repr(parsed)


@given(st.integers(0, LENGTH - 1), st.sampled_from(string.printable))
def test_any_typo_is_found(place: int, other: str) -> None:
    """KEY-16: CRC-32 finds every change of one character."""
    text = new_key("test", new_id())
    typo = text[:place] + other + text[place + 1 :]
    assert (parse_key(typo) is not None) == (typo == text)


@given(st.text() | st.binary())
def test_nothing_else_is_a_key(anything: str | bytes) -> None:
    assert parse_key(anything) is None


def test_other_lengths_alphabets_and_scripts_are_none() -> None:
    """KEY-16, KEY-20."""
    text = new_key("test", new_id())
    for other in (
        "",
        text[:-1],
        text + "0",
        text + "\n",
        text.upper(),
        text.replace("rg_", "RG_"),
        "\u0660" * LENGTH,
        text[:40] + "\x00" + text[41:],
        text[:40] + "%" + text[41:],
        "a" * 1_000_000,
        "\ud800" * LENGTH,
    ):
        assert parse_key(other) is None
