"""Tests of foundation/db/sealing.py."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from routeguard.core.secret import Purpose, Secret
from routeguard.foundation.db.sealing import Sealer
from tests.fakes import deployment

OLD, NEW = Secret("a" * 40), Secret("b" * 40)
OUTBOX = Purpose.OUTBOX


def test_what_was_sealed_opens_in_its_place_only() -> None:
    """SES-22, SES-31"""
    sealer = Sealer(OUTBOX, deployment(NEW))
    sealed = sealer.seal(b"plain", b"row 1")
    assert b"plain" not in sealed
    assert sealer.open(sealed, b"row 1") == b"plain"
    assert sealer.open(sealed, b"row 2") is None
    assert Sealer(Purpose.SIGNING_KEYS, deployment(NEW)).open(sealed, b"row 1") is None
    assert Sealer(OUTBOX, deployment(OLD)).open(sealed, b"row 1") is None
    assert Sealer(OUTBOX, deployment(NEW, issuer="https://other.example.com")).open(sealed, b"row 1") is None
    assert sealer.seal(b"plain", b"row 1") != sealed


def test_an_older_secret_opens_and_does_not_seal() -> None:
    before = Sealer(OUTBOX, deployment(OLD)).seal(b"plain", b"")
    both = Sealer(OUTBOX, deployment(NEW, OLD))
    assert both.open(before, b"") == b"plain"
    assert Sealer(OUTBOX, deployment(OLD)).open(both.seal(b"plain", b""), b"") is None


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_what_was_sealed_before_keys_had_an_issuer_opens(secret: Secret) -> None:
    nonce = os.urandom(12)
    sealed = nonce + AESGCM(secret.derive("outbox")).encrypt(nonce, b"plain", b"row 1")
    assert Sealer(OUTBOX, deployment(NEW, OLD)).open(sealed, b"row 1") == b"plain"
    # And nothing is sealed that way any more.
    new = Sealer(OUTBOX, deployment(secret)).seal(b"plain", b"row 1")
    assert Sealer(OUTBOX, deployment(secret, issuer="https://other.example.com")).open(new, b"row 1") is None


@pytest.mark.parametrize("damaged", [b"", b"x", b"x" * 12, b"x" * 100])
def test_what_nobody_sealed_is_none(damaged: bytes) -> None:
    assert Sealer(OUTBOX, deployment(NEW)).open(damaged, b"") is None
