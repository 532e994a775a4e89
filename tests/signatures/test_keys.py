"""The secret of a client, and the key made from it."""

from __future__ import annotations

import pytest

from routeguard.foundation.signatures.keys import is_secret, is_signed, new_secret, public_key, signing_key


def test_a_secret_makes_one_key() -> None:
    """Written down: every release has to make the same key of it, or no client is known any more."""
    secret = "rgs_" + "0" * 43
    secret += _checksum_of(secret)
    assert public_key(secret) == public_key(secret)
    assert public_key(secret).hex() == KNOWN


def _checksum_of(text: str) -> str:
    """Work the checksum out another way: it is part of the format."""
    from zlib import crc32

    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = crc32(text.encode())
    return "".join(letters[number // 62**place % 62] for place in range(5, -1, -1))


KNOWN = "880a7c69311555a6eea35adf017fbff8096753712c4002367b79fe006c580ee6"


def test_secrets_differ_and_have_a_checksum() -> None:
    made = {new_secret() for _ in range(200)}
    assert len(made) == 200
    for secret in made:
        assert is_secret(secret)
        assert secret.startswith("rgs_")
        assert len(secret) == 53


@pytest.mark.parametrize("place", range(4, 53))
def test_one_wrong_letter_is_told_offline(place: int) -> None:
    secret = new_secret()
    other = "a" if secret[place] != "a" else "b"
    assert not is_secret(secret[:place] + other + secret[place + 1 :])


@pytest.mark.parametrize(
    "text",
    ["", "rgs_", "hunter2", "rgs_" + "a" * 49, "rgs_" + "ä" * 49, "x" * 100_000, " rgs_" + "0" * 43 + "3CRDwz"],
    ids=["empty", "prefix", "word", "checksum", "letter", "long", "space"],
)
def test_what_is_no_secret_makes_no_key(text: str) -> None:
    """JWT-30: whoever could choose a secret could choose one that is guessed from its public key."""
    assert not is_secret(text)
    with pytest.raises(ValueError, match="not a client secret"):
        signing_key(text)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_a_key_that_is_none_verifies_nothing(size: int) -> None:
    assert not is_signed(b"\x01" * size, b"\x00" * 64, b"")


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
@pytest.mark.parametrize("signature", [bytes(64), b"\x01" + bytes(63), b"\xff" * 64])
def test_weak_points_and_zeros_verify_nothing_of_ours(public: bytes, signature: bytes) -> None:
    """JWT-27: a key in the table is a real one, whatever a point of small order would accept."""
    assert not is_signed(public_key(new_secret()), signature, b"x")
    assert not is_signed(public, signature, b"a long enough message") or public == b"\x01" + bytes(31)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_has_64_bytes(size: int) -> None:
    """JWT-28"""
    key = signing_key(new_secret())
    made = key.sign(b"x")
    assert is_signed(key.public_key().public_bytes_raw(), made, b"x")
    assert not is_signed(key.public_key().public_bytes_raw(), (made + b"\x00")[:size], b"x")
