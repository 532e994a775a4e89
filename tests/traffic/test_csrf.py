"""Forged requests are refused, and nobody else's."""

from __future__ import annotations

import base64
import json
import logging
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routeguard.core.cookies import CookieAttributes, CookieScheme
from routeguard.core.credentials import Credential
from routeguard.core.errors import ConfigError
from routeguard.core.policy import Stage, public
from routeguard.core.problem import Problem
from routeguard.core.secret import Secret
from routeguard.core.services import Services
from routeguard.protection.traffic.csrf import (
    COOKIE_NAME,
    PLAIN_COOKIE_NAME,
    Csrf,
    CsrfTokens,
    csrf,
    unsafe_without_csrf,
    with_csrf,
)
from tests.fakes import Unbound, deployment

from .conftest import ORIGINS, Caller, SetClock

pytestmark = pytest.mark.anyio

SESSION = ("cookie", "__Host-routeguard=abc")
OURS = ("origin", "https://app.example.com")
PLAIN = CookieScheme(prefixed=False, attributes=CookieAttributes(secure=False))
ME, OTHER = Caller(), Caller()

LOOK_ALIKES = [
    "http://app.example.com",
    "https://app.example.com.evil.com",
    "https://evilapp.example.com",
    "https://app.example.com:8443",
    "https://app.example.com:443",
    "https://app.example.com.",
    "https://APP.example.com",
    "HTTPS://app.example.com",
    "https://user@app.example.com",
    "https://app.example.com@evil.com",
    "https://аpp.example.com".encode().decode("latin-1"),
    "app.example.com",
    "//app.example.com",
    "https://app.example.com/",
    "https://app.example.com/x",
    "https://example.com",
    "https://x.app.example.com",
    "https://appXexample.com",
    "https://app.example.com\t",
    " https://app.example.com",
    "https://app.example.com, https://evil.com",
    "https://app.example.com https://evil.com",
    "null",
    "",
    "*",
    "https://",
    "http://127.0.0.1",
    "http://127.0.0.1:80",
    "http://localhost:8000",
    "file://",
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("demand", [False, True])
async def test_safe_methods_pass(make_exchange: Any, outcome: Any, method: str, demand: bool) -> None:
    evil = make_exchange(method, SESSION, ("sec-fetch-site", "cross-site"), principal=ME)
    assert await outcome(csrf(token=demand), evil) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param([("sec-fetch-site", "cross-site")], 403, id="CSRF-01"),
        pytest.param([("sec-fetch-site", "same-site")], 403, id="CSRF-01 sibling"),
        pytest.param([("sec-fetch-site", "Same-Origin")], 403, id="CSRF-01 other spelling"),
        pytest.param([("sec-fetch-site", "")], 403, id="CSRF-01 empty"),
        pytest.param([("origin", "https://evil.example")], 403, id="CSRF-03"),
        pytest.param([("origin", "null")], 403, id="CSRF-03 null"),
        pytest.param([("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")], 403, id="CSRF-01 both"),
        pytest.param([OURS, ("origin", "https://evil.example")], 403, id="two Origins"),
        pytest.param([("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], 403, id="two Sec-Fetch-Site"),
        pytest.param([], 403, id="neither, with a cookie"),
        pytest.param([OURS], None, id="trusted Origin"),
        pytest.param([OURS, ("sec-fetch-site", "cross-site")], None, id="trusted Origin on another site"),
        pytest.param([("sec-fetch-site", "same-origin")], None, id="same origin"),
        pytest.param([("sec-fetch-site", "none")], None, id="typed by the user"),
        pytest.param([("origin", "null"), ("sec-fetch-site", "same-origin")], None, id="own form, no referrer"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "FOO", "get"])
async def test_the_rule_in_order(
    make_exchange: Any, outcome: Any, method: str, headers: list[tuple[str, str]], status: int | None
) -> None:
    assert await outcome(csrf(), make_exchange(method, SESSION, *headers, principal=ME)) == status


@pytest.mark.parametrize(
    ("kind", "headers", "words", "says_issuer"),
    [
        ("http", [], "no Origin, Sec-Fetch-Site or X-CSRF-Token, with a credential that browsers send", False),
        ("http", [("authorization", "Basic eDp5")], "programs send the token, or an access token or API key", False),
        ("http", [("origin", "https://evil.example")], "the Origin is not trusted; expected from http", True),
        ("http", [("origin", "null")], "the Origin is null", False),
        ("http", [("sec-fetch-site", "same-site")], "Sec-Fetch-Site is neither same-origin nor none", False),
        ("http", [OURS, ("x-csrf-token", "AAAA")], "malformed, expired or not this caller's", False),
        ("http", [OURS, OURS], "sent twice", False),
        ("websocket", [], "a handshake without Origin", False),
        ("websocket", [("origin", "https://evil.example")], "the Origin is not trusted; expected from http", True),
        ("websocket", [("origin", "null")], "the Origin is null", False),
        ("websocket", [OURS, OURS], "sent twice", False),
    ],
)
async def test_the_log_names_the_cause_and_the_issuer_only_where_it_may_be_wrong(
    make_exchange: Any,
    services: Services,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    headers: Any,
    words: str,
    says_issuer: bool,
) -> None:
    caplog.set_level(logging.INFO)
    refused = await csrf().bind(services)(make_exchange("POST", SESSION, *headers, principal=ME, kind=kind))
    assert isinstance(refused, Problem)
    assert refused.debug is not None
    assert words in refused.debug
    assert ("ROUTEGUARD_ISSUER" in refused.debug) is says_issuer
    (line,) = [one for one in caplog.records if one.name == "routeguard.security"]
    # Whole: a line cuts what is too long.
    assert json.dumps(refused.debug) in line.getMessage()


async def test_a_token_that_a_route_demands_is_named(make_exchange: Any, services: Services) -> None:
    refused = await csrf(token=True).bind(services)(make_exchange("POST", SESSION, OURS, principal=ME))
    assert isinstance(refused, Problem)
    assert refused.debug == "no X-CSRF-Token, which this route demands"


@pytest.mark.parametrize("origin", LOOK_ALIKES)
async def test_look_alikes_are_foreign(make_exchange: Any, outcome: Any, origin: str) -> None:
    """CSRF-06, CSRF-07: for requests and for sockets."""
    assert await outcome(csrf(), make_exchange("POST", SESSION, ("origin", origin), principal=ME)) == 403
    socket = make_exchange("GET", SESSION, ("origin", origin), principal=ME, kind="websocket")
    assert await outcome(csrf(), socket) == 403


async def test_host_is_never_asked(make_exchange: Any, outcome: Any) -> None:
    """CSRF-07: Host equal to a foreign Origin proves nothing."""
    headers = [SESSION, ("host", "evil.example"), ("origin", "https://evil.example")]
    assert await outcome(csrf(), make_exchange("POST", *headers, principal=ME)) == 403


@pytest.mark.parametrize("kind", ["text/plain", "Application/X-WWW-Form-Urlencoded; x=y", "multipart/form-data", ""])
async def test_the_content_type_changes_nothing(make_exchange: Any, outcome: Any, kind: str) -> None:
    """CSRF-08, CSRF-09, CSRF-10."""
    headers = [SESSION, ("origin", "https://evil.example"), ("content-type", kind)]
    assert await outcome(csrf(), make_exchange("POST", *headers, principal=ME)) == 403


async def test_method_override_is_ignored(make_exchange: Any, outcome: Any) -> None:
    """CSRF-11."""
    headers = [SESSION, ("sec-fetch-site", "cross-site"), ("x-http-method-override", "GET")]
    assert await outcome(csrf(), make_exchange("POST", *headers, principal=ME)) == 403


@pytest.mark.parametrize(
    "credential", [("authorization", "Bearer x"), ("authorization", "bEARER x"), ("x-api-key", "x")]
)
async def test_explicit_credentials_pass(make_exchange: Any, outcome: Any, credential: tuple[str, str]) -> None:
    for demand in (False, True):
        exchange = make_exchange("POST", credential, ("origin", "https://other.example"), principal=ME)
        assert await outcome(csrf(token=demand), exchange) is None


async def test_an_invented_header_does_not_switch_the_check_off(make_exchange: Any, outcome: Any) -> None:
    """With our session cookie beside it, only the identity check knows which of the two counted."""
    headers = [SESSION, ("authorization", "Bearer junk"), ("origin", "https://evil.example")]
    exchange = make_exchange("POST", *headers, principal=ME)
    assert await outcome(csrf(), exchange) == 403
    exchange.record_credential(ME, Credential("token"))
    assert await outcome(csrf(), exchange) is None
    # A Basic credential is repeated by the browser: as ambient as a cookie.
    assert await outcome(csrf(), make_exchange("POST", ("authorization", "Basic eDp5"))) == 403
    noted = make_exchange("POST", SESSION, ("origin", "https://evil.example"), principal=ME)
    noted.record_credential(ME, Credential("token"))
    assert await outcome(csrf(), noted) == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_key_of_one_does_not_cover_the_cookie_of_another(make_exchange: Any, outcome: Any, kind: str) -> None:
    """CSRF-01: an attacker's page sends the attacker's own key, and the browser adds the victim's cookie."""
    headers = [SESSION, ("x-api-key", "the attacker's"), ("origin", "https://evil.example")]
    exchange = make_exchange("GET" if kind == "websocket" else "POST", *headers, kind=kind, principal=OTHER)
    exchange.record_credential(OTHER, Credential("token"))
    assert await outcome(csrf(), exchange) is None
    exchange.principal = ME  # What a later check found in the cookie.
    assert await outcome(csrf(), exchange) == 403


@pytest.mark.parametrize("found_by", [None, Credential("token", ambient=True)])
async def test_a_principal_of_no_stated_credential_counts_as_found_in_a_cookie(
    make_exchange: Any, outcome: Any, found_by: Credential | None
) -> None:
    """CSRF-01: an identity check that forgets to say what it read is checked, and so is one that read a cookie."""
    headers = [("cookie", "sid=alice"), ("x-api-key", "x"), ("origin", "https://evil.example")]
    exchange = make_exchange("POST", *headers, principal=ME)
    if found_by is not None:
        exchange.record_credential(ME, found_by)
    assert await outcome(csrf(), exchange) == 403


@pytest.mark.parametrize("junk", [("authorization", "Bearer junk"), ("authorization", "DPoP x"), ("x-api-key", "x")])
@pytest.mark.parametrize("cookie", ["sid=alice", "awsalb=1", "__Secure-x=1", ""])
async def test_an_invented_header_beside_any_cookie(
    make_exchange: Any, outcome: Any, junk: tuple[str, str], cookie: str
) -> None:
    """CSRF-01: the application's own sign-in reads cookies of names unknown here."""
    for sign in (("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("x-nothing", "said")):
        exchange = make_exchange("POST", ("cookie", cookie), junk, sign, principal=ME)
        assert await outcome(csrf(), exchange) == 403
        exchange.record_credential(ME, Credential("token"))
        assert await outcome(csrf(), exchange) is None
    assert await outcome(csrf(), make_exchange("POST", ("cookie", cookie), junk, OURS, principal=ME)) is None
    socket = make_exchange("GET", ("cookie", cookie), junk, kind="websocket", principal=ME)
    assert await outcome(csrf(), socket) == 403
    certificate = make_exchange("POST", junk, ("origin", "null"), extensions={"tls": {"client_cert_name": "CN=me"}})
    assert await outcome(csrf(), certificate) == 403


async def test_without_an_ambient_credential(make_exchange: Any, outcome: Any) -> None:
    """Login CSRF: a guest's browser is judged too; a program without cookies has nothing to forge."""
    assert await outcome(csrf(), make_exchange("POST")) is None
    assert await outcome(csrf(), make_exchange("POST", ("sec-fetch-site", "cross-site"))) == 403
    assert await outcome(csrf(), make_exchange("POST", ("origin", "https://evil.example"))) == 403
    assert await outcome(csrf(token=True), make_exchange("POST")) == 403
    certificate = make_exchange("POST", extensions={"tls": {"client_cert_name": "CN=me"}})
    assert await outcome(csrf(), certificate) == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param([SESSION, ("origin", "https://evil.example")], 403, id="WS-01"),
        pytest.param([SESSION], 403, id="WS-02"),
        pytest.param([SESSION, ("sec-fetch-site", "same-origin")], 403, id="WS-02 metadata alone"),
        pytest.param([SESSION, OURS], None, id="own page"),
        pytest.param([SESSION, OURS, OURS], 403, id="two Origins"),
        pytest.param([("authorization", "Bearer x")], None, id="WS-02 bearer client"),
        pytest.param([], None, id="WS-02 ticket client"),
    ],
)
async def test_handshakes(make_exchange: Any, outcome: Any, headers: list[tuple[str, str]], status: int | None) -> None:
    for demand in (False, True):
        exchange = make_exchange("GET", *headers, kind="websocket", principal=ME)
        assert await outcome(csrf(token=demand), exchange) == status


# -- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_proves_a_request_that_says_nothing_else(
    make_exchange: Any, outcome: Any, services: Services
) -> None:
    token = await services.get(CsrfTokens).issue(make_exchange("GET", SESSION, principal=ME))
    assert await outcome(csrf(), make_exchange("POST", SESSION, ("x-csrf-token", token), principal=ME)) is None
    assert (
        await outcome(csrf(token=True), make_exchange("POST", SESSION, ("x-csrf-token", token), principal=ME)) is None
    )
    # It is asked beside the other signs, never instead of them.
    for sign in (("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")):
        forged = make_exchange("POST", SESSION, ("x-csrf-token", token), sign, principal=ME)
        assert await outcome(csrf(token=True), forged) == 403


async def test_demanded_and_missing(make_exchange: Any, outcome: Any) -> None:
    exchange = make_exchange("POST", SESSION, OURS, ("sec-fetch-site", "same-origin"), principal=ME)
    assert await outcome(csrf(token=True), exchange) == 403


async def test_sent_and_wrong(make_exchange: Any, outcome: Any, services: Services) -> None:
    """A wrong token is refused although Fetch Metadata and Origin are fine."""
    other = await services.get(CsrfTokens).issue(make_exchange("GET", principal=Caller("ses_2")))
    for token in (other, "x", ""):
        exchange = make_exchange("POST", SESSION, OURS, ("x-csrf-token", token), principal=ME)
        assert await outcome(csrf(), exchange) == 403


async def test_rotates_at_sign_in_and_sign_out(make_exchange: Any, services: Services) -> None:
    """CSRF-14."""
    tokens = services.get(CsrfTokens)
    guest = make_exchange("GET")
    before = (await tokens.issue(guest)).encode()
    cookie = ("cookie", guest.effects[0][1].split(b";")[0].decode())
    assert await tokens.verify(make_exchange("POST", cookie), before)
    assert not await tokens.verify(make_exchange("POST", cookie, principal=ME), before)
    during = (await tokens.issue(make_exchange("GET", principal=ME))).encode()
    assert await tokens.verify(make_exchange("POST", principal=ME), during)
    assert not await tokens.verify(make_exchange("POST", cookie), during)
    assert not await tokens.verify(make_exchange("POST", principal=Caller("ses_next")), during)


async def test_guests(make_exchange: Any, outcome: Any, services: Services, clock: SetClock) -> None:
    exchange = make_exchange("GET")
    token = await services.get(CsrfTokens).issue(exchange)
    ((name, value),) = exchange.effects
    assert name == b"set-cookie"
    assert value.startswith(COOKIE_NAME.encode() + b"=")
    assert value.endswith(b"; Path=/; Secure; HttpOnly; SameSite=Lax")
    cookie = value.split(b";")[0].decode()
    assert await outcome(csrf(token=True), make_exchange("POST", ("cookie", cookie), ("x-csrf-token", token))) is None
    # The cookie stays: a second tab must not take the first one's token away.
    again = make_exchange("GET", ("cookie", cookie))
    assert await services.get(CsrfTokens).verify(again, (await services.get(CsrfTokens).issue(again)).encode())
    assert again.effects == []
    plain = CsrfTokens(deployment(), origins=ORIGINS, clock=clock, cookies=PLAIN)
    loopback = make_exchange("GET")
    await plain.issue(loopback)
    assert loopback.effects[0][1].startswith(PLAIN_COOKIE_NAME.encode() + b"=")
    assert b"Secure" not in loopback.effects[0][1]


async def test_cookie_tossing(make_exchange: Any, outcome: Any, services: Services) -> None:
    """CSRF-15, CSRF-16: an equal cookie and header prove nothing, and two cookies are none."""
    value = "A" * 43
    tossed = make_exchange("POST", ("cookie", f"{COOKIE_NAME}={value}"), ("x-csrf-token", value))
    assert await outcome(csrf(), tossed) == 403
    guest = make_exchange("GET")
    token = await services.get(CsrfTokens).issue(guest)
    own = guest.effects[0][1].split(b";")[0].decode()
    for two in (f"{own}; {COOKIE_NAME}={value}", f"{COOKIE_NAME}={value}; {own}", f"{own}; {own}"):
        assert await outcome(csrf(), make_exchange("POST", ("cookie", two), ("x-csrf-token", token))) == 403
    twin = own.replace("__Host-", "__host-")
    assert await outcome(csrf(), make_exchange("POST", ("cookie", twin), ("x-csrf-token", token))) == 403


async def test_time(make_exchange: Any, services: Services, clock: SetClock) -> None:
    """CSRF-19: future and expired."""
    tokens = services.get(CsrfTokens)
    exchange = make_exchange("POST", principal=ME)
    token = (await tokens.issue(exchange)).encode()
    start = clock.at
    for seconds, good in ((0, True), (12 * 3600, True), (12 * 3600 + 2, False), (-59, True), (-62, False)):
        clock.at = start + seconds
        assert await tokens.verify(exchange, token) is good
    clock.at = math.inf
    assert not await tokens.verify(exchange, token)


async def test_every_token_looks_different(make_exchange: Any, services: Services) -> None:
    """CSRF-26: beside the time, which is no secret, no byte stays from one to the next."""
    tokens = [
        base64.urlsafe_b64decode(await services.get(CsrfTokens).issue(make_exchange("GET", principal=ME)))
        for _ in range(60)
    ]
    assert len(set(tokens)) == 60
    assert all(len({token[place] for token in tokens}) > 10 for place in range(48) if not 16 <= place < 24)


async def test_every_flipped_bit_is_noticed(make_exchange: Any, services: Services) -> None:
    tokens = services.get(CsrfTokens)
    exchange = make_exchange("POST", principal=ME)
    raw = base64.urlsafe_b64decode(await tokens.issue(exchange))
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert not await tokens.verify(exchange, base64.urlsafe_b64encode(changed))
    assert await tokens.verify(exchange, base64.urlsafe_b64encode(raw))
    # The other alphabet's spelling of the same bytes is not the token.
    other = base64.b64encode(b"\xff" * 48)
    assert not await tokens.verify(exchange, other)


@given(token=st.binary(max_size=120) | st.binary(min_size=48, max_size=48).map(base64.urlsafe_b64encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_malformed_tokens_never_throw(make_exchange: Any, services: Services, token: bytes) -> None:
    """CSRF-19."""
    assert not await services.get(CsrfTokens).verify(make_exchange("POST", principal=ME), token)


async def test_older_secrets_still_verify(make_exchange: Any, clock: SetClock) -> None:
    old, new = Secret(b"o" * 32), Secret(b"n" * 32)
    exchange = make_exchange("POST", principal=ME)
    token = (await CsrfTokens(deployment(old), origins=ORIGINS, clock=clock).issue(exchange)).encode()
    assert await CsrfTokens(deployment(new, old), origins=ORIGINS, clock=clock).verify(exchange, token)
    assert not await CsrfTokens(deployment(new), origins=ORIGINS, clock=clock).verify(exchange, token)


async def test_routes_that_asked_for_no_session_find_it(make_exchange: Any, clock: SetClock) -> None:
    """A signed-in user's token holds on public routes as well."""
    asked = 0

    async def resume(exchange: Any) -> Caller:
        nonlocal asked
        asked += 1
        return ME

    def sent(exchange: Any) -> bool:
        return b"routeguard=" in exchange.request.headers.get(b"cookie", b"")

    tokens = CsrfTokens(deployment(), origins=ORIGINS, clock=clock, resume=resume, presents=sent)
    token = (await tokens.issue(make_exchange("GET", SESSION, principal=ME))).encode()
    exchange = make_exchange("POST", SESSION)
    assert await tokens.verify(exchange, token)
    assert asked == 1
    assert exchange.principal is None
    assert not await tokens.verify(make_exchange("POST", ("cookie", "a=b")), token)


# -- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "https://a.com/",
        "https://A.com",
        "a.com",
        "*",
        "https://a.com:443",
        "http://a.com:80",
        "https://a.com.",
        "https://u@a.com",
        "https://ä.com",
        "null",
        "",
        "https://a.com:0",
        "https://a.com:70000",
        "ftp://a.com",
        "https://a..com",
        "https://a.com\n",
        "https://-a.com",
        "http://127.1",
        "http://2130706433",
        "http://0x7f.0.0.1",
        "http://1.2.3.256",
        "http://a.0x1",
        "http://[0:0::1]",
    ],
)
def test_origins_are_exact_at_start_up(origin: str, clock: SetClock) -> None:
    with pytest.raises(ConfigError, match="written exactly"):
        CsrfTokens(deployment(), origins=["https://ok.example", origin], clock=clock)


def test_origins_browsers_send(clock: SetClock) -> None:
    given = ["https://a.com", "http://a.com:8080", "http://localhost", "http://[::1]:8000", "https://xn--4ca.com"]
    given += ["http://127.0.0.1", "http://[2001:db8::1]", "http://1.example", "http://a.b1"]
    assert CsrfTokens(deployment(), origins=given, clock=clock).origins.exact == {one.encode() for one in given}


def test_default_and_exemption() -> None:
    added = with_csrf(public)
    assert list(added.find(Csrf)) == [Csrf()]
    assert with_csrf(added) == added
    own = public & csrf(token=True)
    assert with_csrf(own) is own
    exempt = public & unsafe_without_csrf()
    assert with_csrf(exempt) is exempt
    assert exempt.describe() == "public, NO CSRF CHECK"
    # One side of `|` does not speak for the other.
    assert Csrf() in with_csrf((public & csrf()) | public).checks


def test_words_and_place() -> None:
    assert csrf().describe() == "CSRF-checked"
    assert csrf(token=True).describe() == "CSRF token"
    assert Csrf().stage is Stage.FORGERY


def test_a_missing_service_is_a_finding() -> None:
    with pytest.raises(ConfigError, match="CsrfTokens"):
        csrf().bind(Services())


async def test_a_token_from_before_keys_had_an_issuer_is_refused(make_exchange: Any, clock: SetClock) -> None:
    """SES-31"""
    exchange = make_exchange("POST", principal=ME)
    old = CsrfTokens(Unbound(deployment()), origins=ORIGINS, clock=clock)  # type: ignore[arg-type]
    token = (await old.issue(exchange)).encode()
    assert await old.verify(exchange, token)
    assert not await CsrfTokens(deployment(), origins=ORIGINS, clock=clock).verify(exchange, token)
