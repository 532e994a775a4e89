"""What a token whose signature is good still has to say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routeguard import InvalidToken, verify_jwt
from tests.tokens.forge import AUDIENCE, ISSUER, KEYS, NOW, claims, public, token

HS = {"keys": [KEYS["HS256"].as_dict()]}


def check(body: Any = None, *, header: Any = None, **given: Any) -> dict[str, Any]:
    """Verify a token we sign ourselves; HS256, for many of them."""
    expected: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "now": NOW} | given
    return verify_jwt(token("HS256", body, header=header), HS, **expected)


def refused(body: Any = None, **given: Any) -> str:
    with pytest.raises(InvalidToken) as failed:
        check(body, **given)
    return failed.value.reason


def test_a_good_one() -> None:
    assert check() == claims()
    assert check(claims(nbf=NOW, aud=[AUDIENCE])) == claims(nbf=NOW, aud=[AUDIENCE])
    assert check(now=datetime.fromtimestamp(NOW, UTC)) == claims()


@pytest.mark.parametrize(
    "raw",
    [
        '"1900000000"',
        "true",
        "[1900000000]",
        "{}",
        "null",
        "-1",
        "-1900000000",
        "NaN",
        "Infinity",
        "1e400",
        "1" * 70,
        '"never"',
        "false",
    ],
)
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_times_are_numbers(name: str, raw: str) -> None:
    """JWT-23"""
    body = json.dumps(claims(**{name: "HERE"})).replace('"HERE"', raw).encode()
    assert refused(body) in {"time", "json"}


def test_expiry_is_required_and_exact() -> None:
    assert refused(claims(exp=None)) == "expiry"
    assert refused(claims(exp=NOW)) == "expired"
    assert check(claims(exp=NOW + 0.001))
    assert refused(claims(exp=NOW - 5), leeway=5) == "expired"
    assert check(claims(exp=NOW - 4), leeway=timedelta(seconds=5))


def test_not_before_and_issued_ahead() -> None:
    assert check(claims(nbf=NOW))
    assert refused(claims(nbf=NOW + 1)) == "not-yet"
    assert check(claims(nbf=NOW + 1), leeway=1)
    assert check(claims(iat=NOW + 60))
    assert refused(claims(iat=NOW + 61)) == "not-yet"


@pytest.mark.parametrize("leeway", [-1, 301, float("nan"), float("inf"), timedelta(days=1)], ids=repr)
def test_a_leeway_is_short(leeway: Any) -> None:
    with pytest.raises(ValueError, match="leeway"):
        check(leeway=leeway)


@pytest.mark.parametrize(
    "issuer",
    [
        None,
        "",
        ISSUER + "/",
        ISSUER.upper(),
        ISSUER[:-1],
        ISSUER + ".attacker.example",
        "x" + ISSUER,
        [ISSUER],
        1,
        True,
        {"iss": ISSUER},
        ISSUER + "\x00",
    ],
    ids=repr,
)
def test_the_issuer_is_compared_exactly(issuer: object) -> None:
    """JWT-22"""
    assert refused(claims(iss=issuer)) == "issuer"


@pytest.mark.parametrize(
    "audience",
    [
        None,
        "",
        [],
        "other",
        ["other"],
        [AUDIENCE, "other"],
        [[AUDIENCE]],
        [1],
        1,
        {"a": AUDIENCE},
        AUDIENCE + "/",
        AUDIENCE[:-1],
        AUDIENCE.upper(),
        [AUDIENCE, 5],
        True,
    ],
    ids=repr,
)
def test_the_audience_is_us_alone(audience: object) -> None:
    """JWT-21"""
    assert refused(claims(aud=audience)) == "audience"


def test_several_audiences_where_all_are_expected() -> None:
    assert check(claims(aud=[AUDIENCE, "b"]), audience={AUDIENCE, "b", "c"})
    assert check(claims(aud="b"), audience=[AUDIENCE, "b"])
    assert refused(claims(aud=[AUDIENCE, "d"]), audience=[AUDIENCE, "b"]) == "audience"
    assert refused(claims(), audience=[]) == "audience"


@pytest.mark.parametrize(
    "subject", [1, True, [], {}, "x" * 256, "a\x00b", "a\u202eb", "a\nb", "\u2028", "a\u200bb", "\x7f"], ids=ascii
)
def test_a_subject_is_a_short_word(subject: object) -> None:
    """JWT-35"""
    assert refused(claims(sub=subject)) == "subject"
    assert refused(claims(jti=subject)) == "subject"


def test_a_null_subject() -> None:
    """JWT-35"""
    assert refused({**claims(), "sub": None}) == "subject"
    assert check(claims(sub="Žofie 42 🦊"))["sub"] == "Žofie 42 🦊"


@pytest.mark.parametrize("typ", ["JWT", "", "at+jwt ", "at+jw", "application/", "refresh+jwt", "at+jwt\x00"], ids=repr)
def test_every_purpose_has_its_type(typ: str) -> None:
    """JWT-19, JWT-20"""
    assert refused(header={"typ": typ}) == "type"


@pytest.mark.parametrize("typ", [None, 1, ["at+jwt"], {"typ": "at+jwt"}, True], ids=repr)
def test_a_type_is_text(typ: object) -> None:
    assert refused(header={"typ": typ}) == "type"
    if typ is not None:
        assert refused(header={"typ": typ}, typ=None) == "type"


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_one_type_has_several_spellings(typ: str) -> None:
    assert check(header={"typ": typ})


@pytest.mark.parametrize("body", [b"", b"1", b"[]", b"null", b'"x"', b'{"exp":1,"exp":1900000000}', b"\xff", b"{}{}"])
def test_a_payload_is_one_object(body: bytes) -> None:
    assert refused(body) in {"json", "expiry"}


def test_what_is_not_asked_is_not_checked() -> None:
    assert check(claims(iss="anybody", aud="anything"), issuer=None, audience=None)
    assert check(claims(iss=None, aud=None), issuer=None, audience=None)
    assert check(header={"typ": "other"}, typ=None)
    # But it still has to be what it is called.
    assert refused(claims(iss=5), issuer=None) == "issuer"
    assert refused(claims(aud=[5]), audience=None) == "audience"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti"]), _JSON))
@settings(max_examples=300, deadline=None)
def test_whatever_is_claimed_it_is_refused_or_returned(change: dict[str, Any]) -> None:
    """Nothing but InvalidToken comes out, and whatever passes says what was asked for."""
    try:
        found = check({**claims(), **change})
    except InvalidToken:
        return
    assert found["iss"] == ISSUER
    assert found["aud"] in (AUDIENCE, [AUDIENCE])
    assert found["exp"] > NOW


@given(st.binary(max_size=200) | st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_whatever_is_sent_it_is_refused(text: bytes | str) -> None:
    with pytest.raises(InvalidToken):
        verify_jwt(text, public("EdDSA"), now=NOW)


def test_the_clock_is_the_machines_unless_told() -> None:
    with pytest.raises(InvalidToken, match="expired"):
        verify_jwt(token("HS256", claims(exp=5)), HS)
    assert verify_jwt(token("HS256", claims(iat=0, exp=4_000_000_000)), HS)
