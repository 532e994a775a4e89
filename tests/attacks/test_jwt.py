"""JWT: the catalogue's attacks on a running application, through `Authorization: Bearer`.

What a verifier by itself must refuse, with other keys than ours too, is in tests/jose/test_jws.py and test_jwt.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from joserfc.jwk import OKPKey

from routeguard.core.secret import DeploymentKeys, Purpose, Secret
from routeguard.identity.sessions.models import UserSession
from routeguard.identity.sessions.resolver import CookieSessions
from routeguard.identity.tokens.access import AccessTokens
from routeguard.identity.tokens.keys import SigningKeys
from routeguard.identity.tokens.refresh import RefreshCodec
from routeguard.settings import Settings
from tests.attacks.world import COOKIE, Browser, World
from tests.conformance.wire import Result
from tests.sessions.fakes import make_exchange
from tests.steady import work_within
from tests.test_settings import production
from tests.tokens.forge import b64, hs256, unb64, unsigned
from tests.tokens.forge import token as forged

pytestmark = pytest.mark.anyio

SAID = logging.getLogger("routeguard.security")


class Caller:
    """A program with an access token, and somebody who has seen it."""

    def __init__(self, world: World, session: UserSession[Any]) -> None:
        self.world = world
        self.session = session
        self.tokens = world.guard.services.get(AccessTokens)
        self.keys = world.guard.services.get(SigningKeys)
        self.token = self.tokens.mint(session, client_id="test")
        head, body, self.signature = self.token.split(".")
        self.header: dict[str, Any] = json.loads(unb64(head))
        self.claims: dict[str, Any] = json.loads(unb64(body))

    async def ask(self, token: str | bytes, *more: tuple[str, str], target: str = "/api/me") -> Result:
        value = token.decode("latin-1") if isinstance(token, bytes) else token
        return await self.world.ask("GET", target, [("authorization", f"Bearer {value}"), *more])

    def signed(self, claims: Any = None, **header: Any) -> str:
        """A token with our own key's signature: only what it says is wrong."""
        key, body = self.keys.signer(), claims if isinstance(claims, bytes) else self.claims | (claims or {})
        return forged(body=body, key=key.native, header={"kid": key.kid, **header})


@pytest.fixture
async def caller(world: World, alice: Browser) -> AsyncIterator[Caller]:
    cookies = world.guard.services.get(CookieSessions)
    session = await cookies.resume(make_exchange(f"{COOKIE}={alice.cookies[COOKIE]}"))
    assert session is not None
    found = Caller(world, session)
    # The twin of every test: the token as it was issued is good.
    assert (await found.ask(found.token)).status == 200
    yield found
    assert (await found.ask(found.token)).status == 200


def words(answer: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)
    found.pop("instance")
    return found


async def refused(caller: Caller, *tokens: str | bytes) -> None:
    """One answer for all, and for no token at all: nobody learns what is wrong with his."""
    expected = await caller.world.ask("GET", "/api/me")
    assert expected.status == 401
    for token in tokens:
        answer = await caller.ask(token)
        assert (answer.status, words(answer)) == (401, words(expected)), token[:200]
        named = [name for name, _ in answer.headers]
        assert named == [name for name, _ in expected.headers]


async def test_a_token_opens_what_its_session_does(caller: Caller) -> None:
    answer = await caller.ask(caller.token)
    assert json.loads(answer.body)["email"] == "alice@example.com"
    assert (await caller.ask(caller.token, target="/api/admin/report")).status == 403


async def test_no_algorithm(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """JWT-01"""
    tokens = [
        unsigned({**caller.header, "alg": name}, caller.claims, signature)
        for name in ("none", "None", "NONE", "nOnE", "none ", "", "EdDSA\x00")
        for signature in ("", caller.signature, "AAAA")
    ]
    tokens += [unsigned({"typ": "at+jwt", "kid": caller.header["kid"]}, caller.claims, ""), "..", "a.b.c"]
    await refused(caller, *tokens)
    with caplog.at_level(logging.INFO, SAID.name):
        await caller.ask(tokens[0])
    said = [record.getMessage() for record in caplog.records if record.name == SAID.name]
    assert len(said) == 1
    assert "token-refused" in said[0]
    assert not any(part and part in said[0] for part in tokens[0].split("."))


async def test_the_public_key_as_a_secret(caller: Caller) -> None:
    """JWT-03, JWT-04: in every form it may have been copied from, under our key id and without one."""
    (jwk,) = caller.keys.jwks()["keys"]
    native: Any = OKPKey.import_key(jwk).public_key
    encodings, formats = serialization.Encoding, serialization.PublicFormat
    pem = native.public_bytes(encodings.PEM, formats.SubjectPublicKeyInfo)
    raw = unb64(jwk["x"])
    secrets = [
        pem,
        pem.strip(),
        pem.replace(b"\n", b"\r\n"),
        pem + b"\n",
        raw,
        jwk["x"].encode(),
        json.dumps(jwk).encode(),
        json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps({"keys": [jwk]}).encode(),
        native.public_bytes(encodings.DER, formats.SubjectPublicKeyInfo),
        native.public_bytes(encodings.OpenSSH, formats.OpenSSH),
        b"",
        b"secret",
    ]
    await refused(caller, *(hs256(secret, caller.claims, kid=jwk["kid"]) for secret in secrets))
    await refused(caller, *(hs256(secret, caller.claims) for secret in secrets))


async def test_key_ids(caller: Caller) -> None:
    """JWT-08, JWT-09, JWT-10: a name among those of our keys, or nothing."""
    names: list[Any] = [
        "../../dev/null",
        "/proc/self/environ",
        "C:\\nul",
        "' OR '1'='1",
        "a\x00",
        "a\r\nset-cookie: x=y",
        "\ud800",
        "",
        "x" * 10_000,
        1,
        1.5,
        [caller.header["kid"]],
        {"kid": caller.header["kid"]},
        True,
        None,
    ]
    await refused(caller, *(hs256(b"", caller.claims, kid=name) for name in names))
    await refused(caller, *(caller.signed(kid=name) for name in names))


async def test_a_key_of_ones_own(caller: Caller) -> None:
    """A key in the token, or where it says, is not used, whatever its name."""
    own = OKPKey.generate_key("Ed25519")
    for more in ({}, {"jwk": own.as_dict(private=False)}, {"jku": "https://attacker.example"}, {"x5c": ["AA=="]}):
        await refused(caller, forged(body=caller.claims, key=own, header={"kid": caller.header["kid"], **more}))


async def test_long_ones(caller: Caller) -> None:
    """JWT-17, JWT-18: none of it is decoded, so it takes no time."""
    for token in ("A" * 1_000_000, "A" * 8_000_000, "." * 1_000_000, caller.token + "A" * 1_000_000):
        with work_within(2):
            answer = await caller.ask(token)
        assert answer.status == 401
    head, body, signature = caller.token.split(".")
    await refused(caller, head, f"{head}.{body}", f"{caller.token}.", f"{caller.token}.{signature}", f".{caller.token}")
    await refused(caller, f"{caller.token}....", f"{head}..{signature}", f"{head}.{body}.")


async def test_tokens_for_something_else(caller: Caller) -> None:
    """JWT-19, JWT-20: of another type by our own key, a refresh token, a session cookie, an app's own HMAC."""
    types = ["JWT", "id+jwt", "refresh+jwt", "logout+jwt", "", None, 5, ["at+jwt"]]
    await refused(caller, *(caller.signed(typ=typ) for typ in types))
    deployment = caller.world.guard.services.get(DeploymentKeys)
    secret: Secret = caller.world.guard.services.get(Settings).secret  # type: ignore[assignment]
    keys = [secret.reveal(), *(key for purpose in Purpose for key in deployment.derive(purpose))]
    await refused(caller, RefreshCodec(deployment).first(caller.session.principal_id, "fam_x"))
    await refused(caller, *(hs256(key, caller.claims, kid=caller.header["kid"]) for key in keys))


async def test_other_parties_and_times(caller: Caller) -> None:
    """JWT-21, JWT-22, JWT-23, JWT-35, each with our own key's signature."""
    own = caller.claims["iss"]
    changes: list[dict[str, Any]] = [{"aud": value} for value in (None, "other", [], [own, "other"], [[own]], 1)]
    changes += [{"iss": value} for value in (None, own + "/", own.upper(), own[:-1], [own], 1, "")]
    changes += [{"exp": value} for value in (None, "9999999999", True, [9999999999], -1, 1, {})]
    changes += [{"nbf": 99999999999}, {"nbf": "1"}, {"iat": 99999999999}, {"iat": "1"}]
    changes += [{"sub": value} for value in (None, 1, {}, [], "x" * 1000, "usr_\x00", "usr_\u202e", "")]
    changes += [{"sid": value} for value in (None, 1, "ses_other", "")]
    await refused(caller, *(caller.signed(change) for change in changes))
    whole = json.dumps(caller.claims)
    for number in ("NaN", "1e400", "-Infinity", "1" * 100):
        await refused(caller, caller.signed(whole.replace(str(caller.claims["exp"]), number).encode()))
    await refused(caller, caller.signed(whole[:-1].encode() + b',"sub":"usr_other"}'))


async def test_somebody_elses_session(caller: Caller, bob: Browser) -> None:
    """A session is looked up with its owner: with another's id there is none."""
    await refused(caller, caller.signed({"sub": bob.id}))


async def test_spellings(caller: Caller) -> None:
    """JWT-26"""
    head, body, signature = caller.token.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(signature[-1])
    assert last % 16 == 0
    other = signature[:-1] + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last + 1]
    await refused(caller, f"{head}.{body}.{other}", f"{head}.{body}.{signature}==", f"{head}=.{body}.{signature}")


async def test_encrypted_ones(caller: Caller) -> None:
    """JWT-31, JWT-32, JWT-33: five parts are never opened, and nothing is inflated or derived."""
    headers: list[dict[str, Any]] = [
        {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
        {"alg": "RSA1_5", "enc": "A128CBC-HS256"},
        {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2**31, "p2s": "AAAA"},
    ]
    with work_within(2):
        for header in headers:
            await refused(caller, ".".join([b64(json.dumps(header)), "AAAA", "AAAA", "AAAA", "AAAA"]))
            await refused(caller, caller.signed(**{name: header[name] for name in header if name != "alg"}))


async def test_json(caller: Caller) -> None:
    """JWT-34"""
    head, body, signature = caller.token.split(".")
    flat = json.dumps({"protected": head, "payload": body, "signature": signature})
    await refused(caller, flat, json.dumps({"payload": body, "signatures": [flat]}), f'{{"a":"{caller.token}"}}')


async def test_one_token_in_two_ways(caller: Caller) -> None:
    """JWT-39: 400, and the query never counts."""
    twice = [("authorization", f"Bearer {caller.token}")]
    assert (await caller.ask(caller.token, *twice)).status == 400
    assert (await caller.ask(caller.token, target=f"/api/me?access_token={caller.token}")).status == 400
    assert (await caller.world.ask("GET", f"/api/me?access_token={caller.token}")).status in {400, 401}
    assert (await caller.ask(caller.token, ("cookie", f"routeguard-access={caller.token}"))).status == 400


@pytest.mark.parametrize(
    "line",
    [
        "Bearer",
        "Bearer ",
        "bearer",
        "Bearer" + " " * 100,
        "Bearer \xff\xfe",
        "Bearer a b",
        "Bearer ,",
        "Bearer \x00",
        "Basic",
        "Basic abc",
        "Bearer=abc",
        " ",
        "Bearer\tabc",
        "Digest username=x",
    ],
    ids=ascii,
)
async def test_malformed_fields(caller: Caller, line: str) -> None:
    """JWT-40"""
    answer = await caller.world.ask("GET", "/api/me", [("authorization", line)])
    assert answer.status in {400, 401}


async def test_a_token_dies_with_its_session(world: World, bob: Browser) -> None:
    """SES-18: at a sign-out, long before it expires."""
    answer = await bob.post("/auth/token", {})
    assert answer.status == 200
    bearer = [("authorization", f"Bearer {json.loads(answer.body)['access_token']}")]
    assert (await world.ask("GET", "/api/me", bearer)).status == 200
    assert (await bob.post("/auth/sign-out", {})).status == 204
    assert (await world.ask("GET", "/api/me", bearer)).status == 401


async def test_a_token_needs_no_word_of_where_it_comes_from(caller: Caller) -> None:
    """It was put into its field on purpose, so a page elsewhere cannot have made a browser send it."""
    body = json.dumps({"title": "Paper", "amount": 1}).encode()
    fields = [("content-type", "application/json"), ("cookie", "other=1")]
    bearer = ("authorization", f"Bearer {caller.token}")
    assert (await caller.world.ask("POST", "/api/invoices", [*fields, bearer], body=body)).status == 201


def test_secrets_everybody_tries() -> None:
    """JWT-30: production does not start with them."""
    for secret in ("secret", "changeme" * 5, "a" * 64, "short"):
        assert any("secret" in finding for finding in production(secret=Secret(secret)).findings()), secret
