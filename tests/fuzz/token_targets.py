"""Tokens, whole and what their parts say once they are verified."""

from __future__ import annotations

from typing import Final

from routeguard.core.strict_json import JSONRefused, load_json
from routeguard.foundation.jose.jwk import KeySet
from routeguard.foundation.jose.jws import LONGEST, read_header, verify_jws
from routeguard.foundation.jose.jwt import Expected, check_claims
from routeguard.foundation.jose.models import InvalidToken
from routeguard.identity.tokens.refresh import RefreshCodec, RefreshToken
from tests.fakes import deployment

# A fixed token by a fixed key (RFC 7515 appendix A.1), so that a run can be repeated.
_KEYS: Final = KeySet.load(
    {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}
)
TOKEN: Final = (
    b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    b".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    b".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)
TOKEN_WORDS: Final = (
    b".",
    b"=",
    b"eyJhbGciOiJub25lIn0",
    b"eyJhbGciOiJIUzI1NiJ9",
    b"e30",
    b"W10",
    b"A" * 43,
    b"+",
    b"/",
    b"-",
    b"_",
)
CLAIMS: Final = b'{"iss":"me","aud":"us","sub":"usr_1","exp":1800000900,"nbf":1,"iat":1,"jti":"j"}'
CLAIM_WORDS: Final = (
    b'"exp":',
    b'"aud":["us"]',
    b'"sub":',
    b'"nbf":1e400',
    b"[",
    b"{",
    b"]",
    b"}",
    b",",
    b":",
    b"null",
    b"true",
    b"-1",
    b"NaN",
    b'"\\ud800"',
    b'"iss":"me"',
    b"1800000900",
    b" ",
    b'"x":1',
)
JWKS: Final = (
    b'{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","use":"sig","alg":"EdDSA",'
    b'"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},'
    b'{"kty":"EC","crv":"P-256","key_ops":["verify"],"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",'
    b'"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},{"kty":"oct","k":"' + b"A" * 43 + b'"},'
    b'{"kty":"RSA","n":"AQAB","e":"AQAB"}]}'
)
JWK_WORDS: Final = (
    b'"kty":"RSA"',
    b'"kty":"EC"',
    b'"kty":"OKP"',
    b'"kty":"oct"',
    b'"kty":[]',
    b'"n":null',
    b'"n":5',
    b'"e":"AQAB"',
    b'"x":5',
    b'"y":{}',
    b'"k":[]',
    b'"crv":["P-256"]',
    b'"crv":"P-256"',
    b'"alg":["EdDSA"]',
    b'"alg":{}',
    b'"kid":5',
    b'"use":["sig"]',
    b'"key_ops":[["verify"]]',
    b'"key_ops":{}',
    b'"key_ops":"verify"',
    b'"\\ud800"',
    b"null",
    b"1",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b'"keys":',
)
_NOW: Final = 1_800_000_000.0
_EXPECTED: Final = Expected(issuer="me", audience="us")


def read_token(data: bytes) -> None:
    """Only the one token that was signed verifies, in its one spelling."""
    verify_jws(data, _KEYS)
    assert data == TOKEN


def read_token_header(data: bytes) -> None:
    header, parts = read_header(data)
    assert len(data) <= LONGEST
    assert b".".join(parts) == data
    assert not header.keys() & {"crit", "jwk", "jku", "x5u", "x5c", "zip", "b64", "enc"}


def read_claims(data: bytes) -> None:
    found = check_claims({"typ": "at+jwt"}, data, expected=_EXPECTED, now=_NOW)
    assert found["iss"] == "me"
    assert found["aud"] in ("us", ["us"])
    assert found["exp"] > _NOW
    assert found.get("nbf", 0) <= _NOW


def read_keys(data: bytes) -> None:
    """Whatever JSON there is in a key's place: keys that are for something, or InvalidToken (RFC 7517 section 5)."""
    try:
        document = load_json(data, max_depth=8)
    except JSONRefused:
        raise InvalidToken("json") from None
    for key in KeySet.load(document).narrowed(None):
        assert key.algorithms
        assert isinstance(key.kid, str | None)


def read_refresh_token(data: bytes) -> None:
    """Only the one that was written is read, in its one spelling."""
    assert _REFRESH.read(data) is None or data == REFRESH


_REFRESH: Final = RefreshCodec(deployment())
# Made by that key of a fixed secret, so that a run can be repeated.
REFRESH: Final = _REFRESH.successor(RefreshToken("usr_1", "fam_1", 0, b"s" * 32)).encode()
ALLOWED: Final = (InvalidToken,)
