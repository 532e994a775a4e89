"""The signed cookie value: only ours opens, in one spelling."""

from __future__ import annotations

import base64
import hashlib
import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.secret import Purpose, Secret, new_token
from routeguard.identity.sessions.envelope import Envelope, EnvelopeCodec
from routeguard.identity.sessions.models import SessionState
from tests.fakes import deployment

STATE = SessionState("usr_1", "ses_1", 1.0, 2.0, 3.0, 4.0, 5.0, "pwd otp", 1)
ENVELOPE = Envelope(STATE, b"s" * 32, 3.0, b"\x81\xa4role\xa4user")
SECRET = Secret(b"k" * 32)
CODEC = EnvelopeCodec(deployment(SECRET))
VALUE = CODEC.seal(ENVELOPE).encode()
_ALPHABET = (string.ascii_letters + string.digits + "-_").encode()


def test_what_was_sealed_opens() -> None:
    assert CODEC.open(VALUE) == ENVELOPE
    assert set(VALUE) <= set(_ALPHABET + b".")


def test_every_bit_flip_is_refused() -> None:
    """SES-30."""
    for place in range(len(VALUE)):
        for bit in range(8):
            forged = bytearray(VALUE)
            forged[place] ^= 1 << bit
            assert CODEC.open(bytes(forged)) is None


def test_every_truncation_and_extension_is_refused() -> None:
    """SES-30."""
    for length in range(len(VALUE)):
        assert CODEC.open(VALUE[:length]) is None
        assert CODEC.open(VALUE[length + 1 :]) is None
    for more in (b"=", b"A", b".", b" ", b"\n", b"\x00", b"=="):
        assert CODEC.open(VALUE + more) is None
        assert CODEC.open(more + VALUE) is None


def test_swapped_and_respelled_macs_are_refused() -> None:
    """SES-30: base64 has several spellings of one MAC; only ours passes."""
    other = CODEC.seal(msgspec.structs.replace(ENVELOPE, issued_at=9.0)).encode()
    payload, _, mac = VALUE.rpartition(b".")
    assert CODEC.open(payload + b"." + other.rpartition(b".")[2]) is None
    # The last character of 43 carries two unused bits: three other spellings decode to the same 32 bytes.
    spellings = [mac[:-1] + bytes([letter]) for letter in _ALPHABET if letter != mac[-1]]
    same = [one for one in spellings if base64.urlsafe_b64decode(one + b"=") == base64.urlsafe_b64decode(mac + b"=")]
    assert len(same) == 3
    assert all(CODEC.open(payload + b"." + one) is None for one in spellings)


@given(st.binary(max_size=300))
def test_anything_else_is_refused(value: bytes) -> None:
    """SES-30: never an exception."""
    assert CODEC.open(value) is None
    assert CODEC.open(value + b"." + value) is None


def test_a_signed_payload_of_another_shape_is_refused() -> None:
    key = deployment(SECRET).derive(Purpose.SESSION_COOKIE)[0]
    for content in (b"", b"\xc0", msgspec.msgpack.encode(["usr_1"]), b"\xff"):
        payload = base64.urlsafe_b64encode(content).rstrip(b"=")
        mac = base64.urlsafe_b64encode(hashlib.blake2b(payload, key=key, digest_size=32).digest()).rstrip(b"=")
        assert CODEC.open(payload + b"." + mac) is None


def test_a_key_made_for_another_purpose_signs_nothing() -> None:
    """SES-31."""
    payload = VALUE.rpartition(b".")[0]
    for purpose in set(Purpose) - {Purpose.SESSION_COOKIE}:
        for key in (*deployment(SECRET).derive(purpose), *deployment(SECRET).derive_unbound(purpose)):
            mac = base64.urlsafe_b64encode(hashlib.blake2b(payload, key=key, digest_size=32).digest()).rstrip(b"=")
            assert CODEC.open(payload + b"." + mac) is None


def test_a_secret_does_not_show_itself() -> None:
    assert "ssss" not in repr(ENVELOPE)


def test_older_secrets_open_and_do_not_sign() -> None:
    new = Secret(b"n" * 32)
    rotated = EnvelopeCodec(deployment(new, SECRET))
    assert rotated.open(VALUE) == ENVELOPE
    assert CODEC.open(rotated.seal(ENVELOPE).encode()) is None
    assert EnvelopeCodec(deployment(new)).open(VALUE) is None


@pytest.mark.parametrize("size", [10, 2500, 3000, 10_000])
def test_a_cookie_never_grows_too_long(size: int) -> None:
    """CK-09."""
    value = CODEC.seal(msgspec.structs.replace(ENVELOPE, user=b"u" * size)).encode()
    assert len(value) <= 3800
    opened = CODEC.open(value)
    assert opened is not None
    assert len(opened.user) == (size if size <= 2500 else 0)
    assert opened.secret == ENVELOPE.secret


def test_ids_and_secrets_have_no_structure() -> None:
    """SES-20: a million ids are unique, and a sample uses its whole alphabet at every place."""
    assert len({new_token(16) for _ in range(10**6)}) == 10**6
    sample = [f"ses_{new_token(16)}" for _ in range(20_000)]
    assert {len(one) for one in sample} == {26}
    assert all(len({one[place] for one in sample}) == 64 for place in range(4, 25))
