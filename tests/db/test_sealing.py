"""Tests of db/sealing.py."""

from __future__ import annotations

import pytest

from routeguard.core.secret import Secret
from routeguard.db.sealing import Sealer

OLD, NEW = Secret("a" * 40), Secret("b" * 40)


def test_what_was_sealed_opens_in_its_place_only() -> None:
    """SES-22, SES-31"""
    sealer = Sealer("one", NEW)
    sealed = sealer.seal(b"plain", b"row 1")
    assert b"plain" not in sealed
    assert sealer.open(sealed, b"row 1") == b"plain"
    assert sealer.open(sealed, b"row 2") is None
    assert Sealer("another", NEW).open(sealed, b"row 1") is None
    assert Sealer("one", OLD).open(sealed, b"row 1") is None
    assert sealer.seal(b"plain", b"row 1") != sealed


def test_an_older_secret_opens_and_does_not_seal() -> None:
    before = Sealer("one", OLD).seal(b"plain", b"")
    both = Sealer("one", NEW, [OLD])
    assert both.open(before, b"") == b"plain"
    assert Sealer("one", OLD).open(both.seal(b"plain", b""), b"") is None


@pytest.mark.parametrize("damaged", [b"", b"x", b"x" * 12, b"x" * 100])
def test_what_nobody_sealed_is_none(damaged: bytes) -> None:
    assert Sealer("one", NEW).open(damaged, b"") is None
