"""Tests of core/base62.py."""

from __future__ import annotations

import re

from routeguard.core.base62 import CHECKSUM_LENGTH, checksum, random_text


def test_random_text_is_letters_and_digits_and_never_the_same() -> None:
    texts = {random_text(43) for _ in range(1000)}
    assert len(texts) == 1000
    assert all(re.fullmatch("[0-9A-Za-z]{43}", text) for text in texts)


def test_a_checksum_is_that_of_zlib_and_has_one_length() -> None:
    # CRC-32 of "123456789" is 0xCBF43926; of nothing it is 0.
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for letter in checksum("123456789"):
        number = number * 62 + digits.index(letter)
    assert number == 0xCBF43926
    assert checksum("") == "0" * CHECKSUM_LENGTH
