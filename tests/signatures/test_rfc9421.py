"""The standard's own examples (RFC 9421 appendix B, RFC 9530)."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from routeguard.foundation.signatures.base import signature_base
from routeguard.foundation.signatures.digest import check_digest
from routeguard.foundation.signatures.fields import read_signature
from routeguard.foundation.signatures.models import Message, SignatureError
from routeguard.foundation.signatures.profile import signature_of, verify

COVERS = ("foundation/signatures/base", "foundation/signatures/digest", "foundation/signatures/models")

# Appendix B.1.4.
_READ = load_der_public_key(b64decode("MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="))
assert isinstance(_READ, Ed25519PublicKey)
KEY = _READ.public_bytes_raw()
SHA_512 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
# Appendix B.2.
REQUEST = Message(
    "POST",
    "example.com",
    "/foo?param=Value&Pet=dog",
    {
        "host": "example.com",
        "date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "content-type": "application/json",
        "content-digest": SHA_512,
        "content-length": "18",
    },
    b'{"hello": "world"}',
)
# Appendix B.2.6.
COMPONENTS = '("date" "@method" "@path" "@authority" "content-type" "content-length")'
INPUT = f'sig-b26={COMPONENTS};created=1618884473;keyid="test-key-ed25519"'
SIGNATURE = "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:"


def test_the_ed25519_example_verifies() -> None:
    signature = read_signature(INPUT, SIGNATURE)
    assert (signature.label, signature.created, signature.keyid) == ("sig-b26", 1618884473, "test-key-ed25519")
    verify(REQUEST, signature, [KEY])


def test_its_signature_base_is_the_one_printed() -> None:
    signature = read_signature(INPUT, SIGNATURE)
    assert signature_base(REQUEST, signature.components, signature.parameters).decode().splitlines() == [
        '"date": Tue, 20 Apr 2021 02:07:55 GMT',
        '"@method": POST',
        '"@path": /foo',
        '"@authority": example.com',
        '"content-type": application/json',
        '"content-length": 18',
        f'"@signature-params": {COMPONENTS};created=1618884473;keyid="test-key-ed25519"',
    ]


def test_the_example_falls_short_of_our_profile() -> None:
    headers = {**REQUEST.headers, "signature-input": INPUT, "signature": SIGNATURE}
    with pytest.raises(SignatureError, match="does not cover"):
        signature_of(replace(REQUEST, headers=headers))


def test_the_digests_of_the_example_body() -> None:
    check_digest(SHA_512, REQUEST.body)
    both = f"sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:, {SHA_512}"
    check_digest(both, REQUEST.body)
    with pytest.raises(SignatureError, match="not that of the body"):
        check_digest(both, REQUEST.body + b"\n")


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://www.Example.COM/path", "www.example.com"),
        ("https://www.example.com:443/", "www.example.com"),
        ("http://www.example.com:80", "www.example.com"),
        ("http://www.example.com:443/", "www.example.com:443"),
        ("http://[::1]:8000/", "[::1]:8000"),
    ],
)
def test_the_authority_is_normalised(url: str, authority: str) -> None:
    """Section 2.2.3."""
    assert Message.of("GET", url).authority == authority


@pytest.mark.parametrize("url", ["/path", "ftp://example.com/", "https:///path", "https://example.com:port/"])
def test_what_has_no_authority_is_not_signed(url: str) -> None:
    with pytest.raises(ValueError):
        Message.of("GET", url)


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("https://a.example", "/", "?"),
        ("https://a.example/path", "/path", "?"),
        ("https://a.example/path?", "/path", "?"),
        ("https://a.example/path?queryString", "/path", "?queryString"),
        ("https://a.example/p?a=?b", "/p", "?a=?b"),
    ],
)
def test_path_and_query(url: str, path: str, query: str) -> None:
    """Sections 2.2.6 and 2.2.7."""
    message = Message.of("GET", url)
    assert (message.path, message.query) == (path, query)
