"""Compact JWS: the examples of the RFCs verify, and nothing that is almost one does."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from joserfc.jwk import OKPKey

from routeguard.foundation.jose.jwk import KeySet
from routeguard.foundation.jose.jws import verify_jws
from routeguard.foundation.jose.jwt import verify_jwt
from routeguard.foundation.jose.models import InvalidToken, UnusableKey
from tests.steady import work_within
from tests.tokens.forge import AUDIENCE, ISSUER, KEYS, NOW, b64, claims, hs256, public, token, unb64, unsigned

COVERS = ("foundation/jose/jwk", "foundation/jose/models")

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "jws_vectors.json").read_text("utf-8"))
every_vector = pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
every_algorithm = pytest.mark.parametrize("algorithm", list(KEYS))

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@every_vector
def test_the_examples_of_the_rfcs_verify(vector: dict[str, Any]) -> None:
    header, payload = verify_jws(vector["jws"], vector["key"], algorithms=vector["algorithms"])
    assert header["alg"] in vector["name"]
    assert payload == unb64(vector["jws"].split(".")[1])


@every_vector
def test_and_not_with_one_byte_changed(vector: dict[str, Any]) -> None:
    head, payload, signature = vector["jws"].split(".")
    for place in (0, len(payload) // 2):
        other = payload[:place] + ("A" if payload[place] != "A" else "B") + payload[place + 1 :]
        with pytest.raises(InvalidToken):
            verify_jws(f"{head}.{other}.{signature}", vector["key"], algorithms=vector["algorithms"])
    for place in (0, len(signature) // 2):
        other = signature[:place] + ("A" if signature[place] != "A" else "B") + signature[place + 1 :]
        with pytest.raises(InvalidToken):
            verify_jws(f"{head}.{payload}.{other}", vector["key"], algorithms=vector["algorithms"])


def test_the_jwt_of_rfc_7519_section_3_1() -> None:
    vector = VECTORS[0]
    found = verify_jwt(vector["jws"], vector["key"], typ="JWT", issuer="joe", now=1_300_819_379)
    assert found == {"iss": "joe", "exp": 1_300_819_380, "http://example.com/is_root": True}
    with pytest.raises(InvalidToken, match="expired"):
        verify_jwt(vector["jws"], vector["key"], typ="JWT", issuer="joe", now=1_300_819_380)


def test_the_unsecured_jws_of_rfc_7515_appendix_a_5_is_none() -> None:
    """JWT-01"""
    payload = VECTORS[0]["jws"].split(".")[1]
    for vector in VECTORS:
        with pytest.raises(InvalidToken):
            verify_jws(f"eyJhbGciOiJub25lIn0.{payload}.", vector["key"], algorithms=["none"])


@every_algorithm
def test_base64_has_one_spelling(algorithm: str) -> None:
    """JWT-26: padding, unused bits, the other alphabet and white space, in each of the three parts."""
    good = token(algorithm)
    verify_jws(good, public(algorithm))
    parts = good.split(".")
    for place, part in enumerate(parts):
        spellings = {part + "=", part + "==", part + "\n", " " + part, part[:4] + "\r\n" + part[4:], part + "\x00"}
        spellings |= {part.replace("-", "+").replace("_", "/")} - {part}
        unused = {2: 4, 3: 2}.get(len(part) % 4, 0)
        for bits in range(1, 1 << unused):
            spellings.add(part[:-1] + ALPHABET[ALPHABET.index(part[-1]) | bits])
        spellings -= {part}
        for spelling in spellings:
            with pytest.raises(InvalidToken):
                verify_jws(".".join([*parts[:place], spelling, *parts[place + 1 :]]), public(algorithm))


def test_signatures_of_zero_and_of_the_order() -> None:
    """JWT-27: r and s of 0, n and more, in every pair."""
    head, body, good = token("ES256").split(".")
    raw = unb64(good)
    numbers = [0, P256_ORDER, P256_ORDER + 1, 2**256 - 1, int.from_bytes(raw[:32]) + P256_ORDER]
    bad = [number.to_bytes(32) for number in numbers if number < 2**256]
    for left in (*bad, raw[:32]):
        for right in (*bad, raw[32:]):
            if left + right != raw:
                with pytest.raises(InvalidToken):
                    verify_jws(f"{head}.{body}.{b64(left + right)}", public("ES256"))


def test_der_and_other_lengths() -> None:
    """JWT-28"""
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    head, body, good = token("ES256").split(".")
    raw = unb64(good)
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    for bad in (der, raw[:-1], raw + b"\x00", b"\x00" + raw, raw[:32], b"", raw * 2):
        with pytest.raises(InvalidToken):
            verify_jws(f"{head}.{body}.{b64(bad)}", public("ES256"))


@every_algorithm
def test_dots(algorithm: str) -> None:
    """JWT-18, JWT-34: none, one, three to six of them, a million, and JSON."""
    head, body, signature = token(algorithm).split(".")
    shapes = ["", head, f"{head}.{body}", *(".".join([head, body, signature, *[""] * more]) for more in (1, 2, 3, 4))]
    shapes += ["." * 1_000_000, ".", "..", "...", f".{body}.{signature}", f"{head}..{signature}", f"{head}.{body}."]
    flat = {"protected": head, "payload": body, "signature": signature}
    shapes += [json.dumps(flat), json.dumps({"payload": body, "signatures": [flat]}), json.dumps(flat) + ".a.b"]
    for shape in shapes:
        for form in (shape, shape.encode()):
            with pytest.raises(InvalidToken):
                verify_jws(form, public(algorithm))


def test_size_is_looked_at_first() -> None:
    """JWT-17: 64 MB cost nothing, for nothing of them is read."""
    for size in (16_385, 1_000_000, 64_000_000):
        text = b"A" * size
        with work_within(0.5), pytest.raises(InvalidToken, match="size"):
            verify_jws(text, public("EdDSA"))


@pytest.mark.parametrize("value", [None, 1, True, ["EdDSA"], {"a": "EdDSA"}, "", "eddsa", "EdDSA "], ids=repr)
def test_an_algorithm_is_the_keys_own_name(value: object) -> None:
    with pytest.raises(InvalidToken):
        verify_jws(token(header={"alg": value}), public("EdDSA"))


@pytest.mark.parametrize("kid", [1, 1.5, True, ["a"], {"a": 1}], ids=repr)
def test_a_key_id_is_text(kid: object) -> None:
    """JWT-10"""
    with pytest.raises(InvalidToken):
        verify_jws(token(header={"kid": kid}), {"keys": [public("EdDSA", kid="a"), public("ES256")]})


def test_a_key_id_chooses_and_does_nothing_else() -> None:
    """JWT-08, JWT-09: what is no name of a key finds none; and one that is finds only that key."""
    keys = {"keys": [public("EdDSA", kid="a"), public("ES256", kid="b")]}
    assert verify_jws(token(header={"kid": "a"}), keys)
    for kid in ("b", "", "A", "../../dev/null", "a'--", "a\x00", "a\r\nX: y", "\ud800", "x" * 8000):
        with pytest.raises(InvalidToken):
            verify_jws(token(header={"kid": kid}), keys)


@pytest.mark.parametrize("name", ["crit", "b64", "zip", "enc", "jwk", "jku", "x5u", "x5c"])
def test_header_members_that_change_the_question(name: str) -> None:
    """JWT-31, JWT-32: also where the signature is good."""
    good = {"crit": ["exp"], "b64": False, "zip": "DEF", "enc": "A256GCM", "jwk": public("EdDSA")}
    with pytest.raises(InvalidToken, match="header"):
        verify_jws(token(header={name: good.get(name, "https://attacker.example/keys")}), public("EdDSA"))


def test_a_key_that_comes_with_the_token_is_not_used() -> None:
    own = OKPKey.generate_key("Ed25519")
    for header in ({"jwk": own.as_dict(private=False)}, {"jku": "https://attacker.example/jwks.json"}, {}):
        with pytest.raises(InvalidToken):
            verify_jws(token(key=own, header=header), public("EdDSA"))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"1",
        b'"a"',
        b"null",
        b'{"alg":"EdDSA","alg":"none"}',
        b'{"alg":"EdDSA"',
        b'\xef\xbb\xbf{"alg":"EdDSA"}',
        b'{"alg":"EdDSA","a":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"alg":"EdDSA","a":"\\ud800"}',
        b'{"alg":"EdDSA","a":NaN}',
    ],
    ids=repr,
)
def test_a_header_is_one_object_read_one_way(header: bytes) -> None:
    with pytest.raises(InvalidToken):
        verify_jws(token(header=header), public("EdDSA"))


@pytest.mark.parametrize("one", list(KEYS))
@pytest.mark.parametrize("other", list(KEYS))
def test_a_key_is_for_its_own_algorithm(one: str, other: str) -> None:
    """RFC 8725 section 3.1: every pair of a signer's algorithm and a verifier's key."""
    if one == other:
        assert verify_jws(token(one), public(one))
        return
    with pytest.raises(InvalidToken):
        verify_jws(token(one), public(other))
    with pytest.raises(InvalidToken):
        verify_jws(token(one, header={"alg": other}), public(other))


def test_algorithms_narrow_and_never_widen() -> None:
    good = token("RS256")
    assert verify_jws(good, public("RS256"), algorithms=["RS256", "EdDSA"])
    for given in ([], ["PS256"], ["none"], ["HS256"], "RS25"):
        with pytest.raises(InvalidToken):
            verify_jws(good, public("RS256"), algorithms=given)
    with pytest.raises(InvalidToken):
        verify_jws(good, public("RS256", alg="PS256"), algorithms=["RS256", "PS256"])
    assert verify_jws(token("RS256"), KeySet.load(public("RS256")), algorithms="RS256")


def test_pem_of_a_public_key() -> None:
    for algorithm in ("EdDSA", "ES256", "RS256"):
        pem = KEYS[algorithm].as_pem(private=False)
        assert verify_jws(token(algorithm), pem)
        assert verify_jws(token(algorithm), "\n" + pem.decode() + "\r\n")
        with pytest.raises(UnusableKey):
            verify_jws(token(algorithm), KEYS[algorithm].as_pem(private=True))


def test_secrets_that_are_none() -> None:
    """JWT-03, JWT-04, JWT-30: too short, or what everybody may know in any form it is written down."""
    key = KEYS["RS256"].public_key
    pkcs1 = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ssh = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    document = json.dumps(public("RS256")).encode()
    short = [b"", b"secret", b"a" * 31]
    for secret in (*short, pkcs1, der, ssh, ssh + b"\n", document, json.dumps({"keys": [public("RS256")]}).encode()):
        with pytest.raises(UnusableKey):
            KeySet.load(secret)
        with pytest.raises(UnusableKey):
            KeySet.load({"kty": "oct", "k": b64(secret)})
    assert len(KeySet.load(b"\x00" * 32)) == 1


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_a_public_key_in_another_spelling_is_no_secret(algorithm: str) -> None:
    """JWT-04: without its frame, in base64 or hex, or saved by an editor; what is random passes in all of them."""
    key = KEYS[algorithm].public_key
    pem = KEYS[algorithm].as_pem(private=False)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ssh = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    body = b"\n".join(pem.splitlines()[1:-1])
    bare = ssh.split()[1]
    spellings = [
        der + b"\n",
        der + b"\r\n",
        der.hex().encode(),
        der.hex(":").upper().encode(),
        b"0x" + der.hex().encode(),
        body,
        body.replace(b"\n", b""),
        body.replace(b"\n", b"\r\n") + b"\r\n",
        b64(der).encode(),
        bare,
        bare + b"\n",
        base64.b64decode(bare),
        base64.b64encode(pem),
        pem.hex().encode(),
        json.dumps(public(algorithm)).encode().hex().encode(),
    ]
    for secret in spellings:
        with pytest.raises(UnusableKey):
            verify_jws(hs256(secret), secret)
    random = bytes(range(7, 71))
    for secret in (random, random.hex().encode(), base64.b64encode(random), b64(random).encode(), random[:32]):
        assert verify_jws(hs256(secret), secret)


def test_the_other_spelling_of_an_ecdsa_signature_is_the_same_token() -> None:
    """JWT-26: of (r, s) everybody can make (r, n - s). It verifies, so a token's name is its `jti`, never its text."""
    first = token("ES256")
    head, body, signature = first.split(".")
    raw = unb64(signature)
    other = P256_ORDER - int.from_bytes(raw[32:])
    second = f"{head}.{body}.{b64(raw[:32] + other.to_bytes(32))}"
    assert second != first
    keys = public("ES256")
    said = [verify_jwt(one, keys, issuer=ISSUER, audience=AUDIENCE, now=NOW) for one in (first, second)]
    assert said[0] == said[1]
    assert said[0]["jti"] == "j"


@pytest.mark.parametrize(
    "key",
    [
        None,
        1,
        1.5,
        [],
        {},
        {"kty": "EC"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "oct"},
        {"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty": ["RSA"]},
        {"kty": "OKP", "crv": "Ed25519", "x": 5},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        "-----BEGIN PUBLIC KEY-----\nAA",
        {"keys": "abc"},
        {"keys": [{}] * 101},
        {"keys": []},
        {"keys": [{"kty": "unknown"}]},
    ],
    ids=repr,
)
def test_keys_that_cannot_be_used_verify_nothing(key: object) -> None:
    with pytest.raises(InvalidToken):
        verify_jws(token(), key)


@pytest.mark.parametrize(
    "change",
    [
        {"alg": ["EdDSA"]},
        {"alg": {}},
        {"alg": 5},
        {"key_ops": [["verify"]]},
        {"key_ops": [{}]},
        {"key_ops": "verify"},
        {"key_ops": {"verify": 1}},
        {"use": ["sig"]},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "n": None},
        {"kty": "RSA", "n": "AQAB", "e": {}},
        {"kty": "oct", "k": 5},
        {"kty": "oct", "k": ["A" * 43]},
        {"kty": {}},
        {"kty": "EC", "crv": ["P-256"], "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": 5, "y": []},
        {"x": None},
        {"x": "\ud800"},
        {"crv": []},
        {"kid": ["a"]},
    ],
    ids=repr,
)
def test_a_key_with_a_member_of_another_type_is_no_key_and_spoils_no_set(change: dict[str, Any]) -> None:
    """RFC 7517 section 5: by itself it is InvalidToken and nothing else; in a set it is left out."""
    bad = public("EdDSA", **change)
    for keys in (bad, [bad], {"keys": [bad]}):
        with pytest.raises(InvalidToken):
            verify_jwt(token(), keys, now=NOW)
    good = public("EdDSA", kid="a")
    assert len(KeySet.load({"keys": [bad, good, bad]})) == 1
    assert verify_jws(token(header={"kid": "a"}), {"keys": [bad, good]})


def test_keys_for_something_else() -> None:
    for change in ({"use": "enc"}, {"key_ops": ["encrypt"]}, {"key_ops": []}, {"alg": "ES256"}, {"kid": 5}):
        with pytest.raises(UnusableKey):
            KeySet.load(public("EdDSA", **change))
    weak = {"kty": "RSA", "n": b64((2**2047 + 1).to_bytes(256)), "e": b64(b"\x01")}
    for change in (
        {},
        {"e": b64(b"\xff" * 64)},
        {"n": b64(b"\xff" * 128), "e": "AQAB"},
        {"n": b64(b"\xff" * 2048), "e": "AQAB"},
    ):
        with pytest.raises(UnusableKey):
            KeySet.load(weak | change)


def test_a_secret_in_a_published_set_is_not_used() -> None:
    """JWT-03: beside public keys it is a mistake, or somebody else's."""
    keys = {"keys": [public("EdDSA", kid="a"), KEYS["HS256"].as_dict()]}
    assert verify_jws(token(header={"kid": "a"}), keys)
    with pytest.raises(InvalidToken):
        verify_jws(token("HS256"), keys)
    assert verify_jws(token("HS256"), {"keys": [KEYS["HS256"].as_dict()]})


def test_members_that_are_not_understood_spoil_no_set() -> None:
    keys = {"keys": [{"kty": "AKP", "pub": "x"}, 7, public("EdDSA", use="enc"), public("EdDSA", kid="a")]}
    assert verify_jws(token(header={"kid": "a"}), keys)
    assert len(KeySet.load(keys)) == 1


def test_two_keys_of_one_name_are_both_tried() -> None:
    other = OKPKey.generate_key("Ed25519")
    keys = {"keys": [{**other.as_dict(private=False), "kid": "a"}, public("EdDSA", kid="a")]}
    assert verify_jws(token(header={"kid": "a"}), keys)


def test_nothing_secret_is_said() -> None:
    """Neither the token nor the key is in an error or a repr."""
    secret = b"correct horse battery staple, plus some"
    with pytest.raises(InvalidToken) as failed:
        verify_jws(token("EdDSA"), secret)
    assert str(failed.value) == "invalid token: key"
    assert "horse" not in repr(KeySet.load(secret)._all)
    assert failed.value.__cause__ is None
    assert unsigned({"alg": "none"}, claims()) not in str(failed.value)
