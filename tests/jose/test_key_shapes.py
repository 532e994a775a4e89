"""No asymmetric key passes as an HMAC secret, whoever knows its curve; no weak or private key verifies anything."""

from __future__ import annotations

import base64
import json
import random
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from routeguard.foundation.jose.jwk import KeySet
from routeguard.foundation.jose.key_shapes import looks_public
from routeguard.foundation.jose.models import UnusableKey
from routeguard.remote.keys import _read


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content


def spki(curve: bytes, size: int) -> bytes:
    """A SubjectPublicKeyInfo of a curve by its object id."""
    algorithm = der(0x30, bytes.fromhex("06072a8648ce3d0201"), der(0x06, curve))
    return der(0x30, algorithm, der(0x03, b"\x00\x04" + b"\x5a" * size))


def ssh(name: bytes) -> bytes:
    body = b"\x42" * 57
    return len(name).to_bytes(4, "big") + name + len(body).to_bytes(4, "big") + body


# Curves no library here knows: secp224k1, an invented one, and GOST's.
UNKNOWN: Final = [
    spki(bytes.fromhex("2b81040020"), 56),
    spki(bytes.fromhex("2a030405060708"), 64),
    der(
        0x30,
        der(0x30, bytes.fromhex("06082a85030701010101"), der(0x30, bytes.fromhex("06072a850302022301"))),
        der(0x03, b"\x00" + der(0x04, b"\x5a" * 64)),
    ),
]
POINT: Final = ec.generate_private_key(ec.SECP256K1())
RSA: Final = rsa.generate_private_key(65537, 2048)
BINARY: Final = [
    *UNKNOWN,
    ssh(b"ssh-ed448"),
    ssh(b"sk-ssh-ed25519@openssh.com"),
    ssh(b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com"),
    POINT.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    RSA.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1),
    RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    RSA.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
]


def spellings(key: bytes) -> list[bytes]:
    text = base64.b64encode(key)
    lines = base64.encodebytes(key)
    pem = b"-----BEGIN PUBLIC KEY-----\n" + lines + b"-----END PUBLIC KEY-----\n"
    return [
        key,
        key + b"\n",
        key + b"\r\n",
        text,
        lines,
        lines.replace(b"\n", b"\r\n"),
        text.rstrip(b"="),
        base64.urlsafe_b64encode(key),
        key.hex().encode(),
        b"0x" + key.hex().upper().encode(),
        key.hex(":").encode(),
        b" \n" + text,
        text + b" a comment",
        b"ecdsa-x " + text + b" somebody@host",
        pem,
        pem.replace(b"\n", b"\\n"),
        pem.decode().encode("utf-16"),
        b"\xef\xbb\xbf" + pem,
        base64.b64encode(pem),
        pem.replace(b"-", b""),
        b"\n".join(pem.splitlines()[1:-1]),
    ]


@pytest.mark.parametrize("key", BINARY, ids=range(len(BINARY)))
@pytest.mark.parametrize("number", range(21))
def test_a_key_is_no_secret_in_any_spelling(key: bytes, number: int) -> None:
    """JWT-03, JWT-04"""
    value = spellings(key)[number]
    for given in (value, {"kty": "oct", "k": base64.urlsafe_b64encode(value).decode().rstrip("=")}):
        with pytest.raises(UnusableKey):
            KeySet.load(given, algorithms=["HS256"])


@pytest.mark.parametrize(
    "text",
    [
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC",
        "ecdsa-sha2-nistk409 AAAAE2VjZHNhLXNoYTItbmlzdGs0MDk= x",
        "<RSAKeyValue><Modulus>AQAB</Modulus></RSAKeyValue>",
        "PuTTY-User-Key-File-3: ssh-ed25519",
        ' {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}',
        '[{"kty": "EC", "crv": "P-192"}, {"x": 1}]',
    ],
)
def test_a_text_that_holds_a_key_is_no_secret(text: str) -> None:
    """JWT-03, JWT-04"""
    assert looks_public(text.encode())


def test_random_secrets_are_secrets() -> None:
    chance = random.Random(12)
    for size in range(32, 140):
        for _ in range(60):
            value = chance.randbytes(size)
            for form in (value, base64.b64encode(value), value.hex().encode()):
                assert not looks_public(form)
    assert not looks_public(b"correct horse battery staple and a few more words")


@pytest.mark.parametrize("size", [0, 1, 16, 31])
def test_a_short_secret_is_none(size: int) -> None:
    """JWT-30"""
    for given in (b"s" * size, {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * size).decode().rstrip("=")}):
        with pytest.raises(UnusableKey):
            KeySet.load(given)


# -- weak and private keys ---------------------------------------------------------------------------------------------

_OWN: Final[dict[str, Any]] = {
    "RSA": RSAKey.generate_key(2048),
    "EC": ECKey.generate_key("P-256"),
    "OKP": OKPKey.generate_key("Ed25519"),
}
_MEMBERS: Final = [
    ("RSA", "d"),
    ("RSA", "p"),
    ("RSA", "q"),
    ("RSA", "dp"),
    ("RSA", "dq"),
    ("RSA", "qi"),
    ("RSA", "oth"),
    ("RSA", "k"),
    ("EC", "d"),
    ("EC", "k"),
    ("OKP", "d"),
    ("OKP", "k"),
]


@pytest.mark.parametrize(("kty", "member"), _MEMBERS)
@pytest.mark.parametrize("value", ["AQAB", "", None, []])
def test_a_published_private_half_makes_a_key_unusable(kty: str, member: str, value: Any) -> None:
    """Whoever reads the set signs with it."""
    public = _OWN[kty].as_dict(private=False) | {"kid": "a"}
    assert len(KeySet.load(public)) == 1
    leaked = public | {member: value}
    other = OKPKey.generate_key("Ed25519").as_dict(private=False) | {"kid": "b"}
    for given in (leaked, [leaked]):
        with pytest.raises(UnusableKey):
            KeySet.load(given)
    assert [key.kid for key in KeySet.load({"keys": [leaked, other]}).narrowed(None)] == ["b"]
    assert list(_read(json.dumps({"keys": [leaked, other]}).encode()) or ()) == ["b"]


def test_a_secret_with_members_of_another_key_is_unusable() -> None:
    secret = OctKey.generate_key(256).as_dict(private=True)
    assert len(KeySet.load(secret)) == 1
    with pytest.raises(UnusableKey):
        KeySet.load(secret | {"d": "AQAB"})


def _b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")).decode().rstrip("=")


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 5, 17, 257, 65535, 65536, 65538, 2**32 + 1, 2**64 + 13])
def test_weak_exponents_are_refused(exponent: int) -> None:
    public = _OWN["RSA"].as_dict(private=False)
    assert len(KeySet.load(public)) == len(KeySet.load(public | {"e": _b64(65537 + 2)})) == 1
    with pytest.raises(UnusableKey):
        KeySet.load(public | {"e": _b64(exponent)})


def test_a_pem_of_exponent_three_is_refused() -> None:
    public = rsa.generate_private_key(3, 2048).public_key()
    with pytest.raises(UnusableKey):
        KeySet.load(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
