"""signed_client(): whose call it is, and that each counts once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.services import Services
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.signatures.keys import new_secret
from routeguard.identity.oauth_server import checks
from routeguard.identity.oauth_server.checks import SignedClient, signed_client
from routeguard.identity.oauth_server.models import ClientSettings
from tests.conformance.wire import send
from tests.oauth_server.world import ISSUER, JSON, Service, World

pytestmark = pytest.mark.anyio


async def test_a_signed_call_is_that_of_its_client(world: World, shop: Service) -> None:
    answer = await shop.call("POST", "/service?a=1&b=%20", b'{"x": 1}', JSON)
    assert answer.status == 200
    # The handler reads the very body that was verified (BODY-21).
    assert json.loads(answer.body) == {"id": shop.id, "kind": "ClientPrincipal", "body": '{"x": 1}'}


async def test_a_body_in_pieces_is_verified_whole(world: World, shop: Service) -> None:
    headers = shop.signed("POST", "/service", b"abcdef")
    answer = await world.send("POST", "/service", headers, [b"ab", b"", b"cd", b"ef"])
    assert json.loads(answer.body)["body"] == "abcdef"


async def test_every_refusal_looks_the_same(world: World, shop: Service) -> None:
    """OAP-29, WH-01, WH-02, WH-07, WH-21: unsigned, wrong, old, of an unknown client, for another service."""
    path, body = "/service?a=1", b"body"
    now = shop.now
    other = Service(world, shop.id, new_secret())
    stranger = Service(world, "cli_" + "A" * 22, new_secret())
    good = shop.signed("POST", path, body)
    doubled = good["signature-input"]
    attempts = {
        "no signature": {},
        "another secret": other.signed("POST", path, body),
        "unknown client": stranger.signed("POST", path, body),
        "another method": shop.signed("PUT", path, body),
        "another path": shop.signed("POST", "/either?a=1", body),
        "another query": shop.signed("POST", "/service?a=2", body),
        "another body": shop.signed("POST", path, b"other"),
        "another host": replace(shop, url="https://evil.example").signed("POST", path, body),
        "another port": replace(shop, url=ISSUER + ":8443").signed("POST", path, body),
        "old": shop.signed("POST", path, body, now=now - 600),
        "of the future": shop.signed("POST", path, body, now=now + 600),
        "no digest": {name: value for name, value in good.items() if name != "content-digest"},
        "two signatures": {**good, "signature-input": f"{doubled}, {doubled}"},
        "a type that is not covered": {**shop.signed("POST", path, body), **JSON},
    }
    bodies = set()
    for name, headers in attempts.items():
        answer = await world.send("POST", path, headers, body)
        assert answer.status == 401, name
        assert dict(answer.headers)[b"www-authenticate"] == b"Bearer"
        problem = json.loads(answer.body)
        del problem["instance"]
        bodies.add(json.dumps(problem))
    assert len(bodies) == 1


async def test_host_says_nothing(world: World, shop: Service) -> None:
    """WH-21: the authority is the issuer's, whatever the request calls it."""
    headers = shop.signed("GET", "/service") | {"host": "evil.example"}
    assert (await world.send("GET", "/service", headers)).status == 200
    evil = replace(shop, url="https://evil.example").signed("GET", "/service") | {"host": "evil.example"}
    assert (await world.send("GET", "/service", evil)).status == 401


async def test_a_call_by_another_of_our_addresses_counts(sqlite_url: str) -> None:
    own = ClientSettings(addresses=("http://identity.internal:8000", "https://id.example.net"))
    async with World.open(sqlite_url, clients=own) as world:
        shop = await world.client()
        for url in (*own.addresses, ISSUER):
            assert (await replace(shop, url=url).call("POST", "/service", b"x")).status == 200
        for url in ("http://identity.internal", "https://id.example.net:8000", "https://other.example.net"):
            assert (await replace(shop, url=url).call("POST", "/service", b"x")).status == 401, url


async def test_trusted_origins_are_other_applications(sqlite_url: str) -> None:
    async with World.open(sqlite_url, trusted_origins=("https://app.example.com",)) as world:
        shop = replace(await world.client(), url="https://app.example.com")
        assert (await shop.call("GET", "/service")).status == 401


async def test_on_loopback_a_machine_has_two_names(sqlite_url: str) -> None:
    async with World.open(sqlite_url, issuer="http://127.0.0.1:8000") as world:
        shop = await world.client()
        for host in ("http://127.0.0.1:8000", "http://localhost:8000"):
            assert (await replace(shop, url=host).call("GET", "/service")).status == 200
        assert (await replace(shop, url="http://127.0.0.1:8001").call("GET", "/service")).status == 401


async def test_a_signature_counts_once(world: World, shop: Service) -> None:
    """WH-03"""
    headers = shop.signed("POST", "/service", b"x")
    answers = await asyncio.gather(*(world.send("POST", "/service", headers, b"x") for _ in range(30)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 29
    assert (await world.send("POST", "/service", headers, b"x")).status == 401


async def test_a_policy_that_asks_twice_asks_of_one_call(world: World, shop: Service) -> None:
    headers = shop.signed("GET", "/twice")
    assert (await world.send("GET", "/twice", headers)).status == 200
    assert (await world.send("GET", "/twice", headers)).status == 401


async def test_a_bad_call_uses_no_nonce_up(world: World, shop: Service) -> None:
    """WH-03: whoever sees a call on its way cannot make it void by sending half of it first."""
    headers = shop.signed("POST", "/service", b"x")
    assert (await world.send("POST", "/service", headers, b"y")).status == 401
    assert (await world.send("POST", "/service", headers, b"x")).status == 200


async def test_clients_have_nonces_of_their_own(world: World, shop: Service) -> None:
    """SES-31: what one client used is not used for another."""
    from routeguard.foundation.signatures.keys import signing_key
    from routeguard.foundation.signatures.models import Message
    from routeguard.foundation.signatures.profile import sign

    other = await world.client("other")
    for service in (shop, other):
        message = Message.of("GET", ISSUER + "/service")
        headers = sign(
            message, key=signing_key(service.secret), keyid=service.id, created=int(service.now), nonce="n" * 16
        )
        assert (await world.send("GET", "/service", headers)).status == 200


async def test_without_the_store_of_nonces_nobody_is_let_in(
    world: World, shop: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AZ-16, OPS-03"""
    store = world.guard.services.get(Ephemeral)

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the store")

    monkeypatch.setattr(store, "claim", away)
    answer = await shop.call("GET", "/service")
    assert answer.status == 503
    assert b"retry-after" in dict(answer.headers)
    # Wrong is wrong all the same.
    assert (await Service(world, shop.id, new_secret()).call("GET", "/service")).status == 401


async def test_a_body_over_the_limit_is_413(world: World, shop: Service) -> None:
    """BODY-01: a signature does not open the door to any size."""
    body = b"x" * (32 * 1024 + 1)
    answer = await shop.call("POST", "/oauth/introspect", body, JSON)
    assert answer.status == 413


async def test_a_doubled_field_is_refused(world: World, shop: Service) -> None:
    """WH-07"""
    headers = shop.signed("POST", "/service", b"x", JSON)
    for name in ("signature", "signature-input", "content-digest", "content-type"):
        raw = [(key.encode(), value.encode()) for key, value in headers.items()]
        raw.append((name.encode(), headers[name].encode()))
        answer = await send(world.app, "POST", "/service", raw, b"x", raw_path=b"/service", client=("192.0.2.1", 1))
        assert answer.status in {400, 401}, name
    assert (await world.send("POST", "/service", headers, b"x")).status == 200


async def test_a_client_is_no_user(world: World, shop: Service) -> None:
    """OAP-29: beside `|` a signature is one credential among others, and on a session's route it is none."""
    answer = await shop.call("GET", "/either")
    assert json.loads(answer.body)["kind"] == "ClientPrincipal"
    cookie = {"cookie": f"__Host-routeguard={await world.cookie(await world.user())}"}
    answer = await world.send("GET", "/either", cookie)
    assert json.loads(answer.body)["kind"] == "UserSession"
    assert (await shop.call("GET", "/auth/session")).status == 401


async def test_a_wrong_signature_beside_a_good_cookie_is_judged_by_the_cookie(world: World) -> None:
    cookie = {"cookie": f"__Host-routeguard={await world.cookie(await world.user())}"}
    forged = dict(next(attack.headers for attack in SignedClient().attacks() if attack.headers))
    assert (await world.send("GET", "/either", cookie | forged)).status == 200
    assert (await world.send("GET", "/either", forged)).status == 401


async def test_it_refuses_its_own_attacks(world: World) -> None:
    for attack in SignedClient().attacks():
        answer = await world.send("GET", "/service", dict(attack.headers))
        assert answer.status == attack.status, attack.name


async def test_a_cookie_from_a_browser_does_not_ask_for_csrf_proof(world: World, shop: Service) -> None:
    """CSRF: the signature is in a field no page can set."""
    headers = shop.signed("POST", "/either", b"x") | {"cookie": "a=b"}
    assert (await world.send("POST", "/either", headers, b"x")).status == 200


def test_it_needs_clients_to_know() -> None:
    with pytest.raises(ConfigError):
        signed_client().bind(Services())


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": ("id.example.com",)},
        {"addresses": ("https://id.example.com/path",)},
        {"addresses": ("https://user@id.example.com",)},
        {"addresses": ("ftp://id.example.com",)},
        {"rate": "fast"},
        {"skew": timedelta(0)},
        {"skew": timedelta(minutes=6)},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ClientSettings(**wrong)  # type: ignore[arg-type]


async def test_a_call_held_back_counts_by_what_is_so_when_it_is_whole(world: World, shop: Service) -> None:
    """WH-03: whose client is revoked while its body is on the way, or comes after somebody else used the signature."""
    other = await world.client("other")
    for service, before in ((shop, "used"), (other, "revoked")):
        headers = service.signed("POST", "/service", b"xy")
        gate, half = asyncio.Event(), asyncio.Event()

        async def held(scope: Any, receive: Any, sender: Any, gate: Any = gate, half: Any = half) -> None:
            async def slowly() -> Any:
                message = await receive()
                if not message.get("more_body", False):
                    half.set()
                    await gate.wait()
                return message

            await world.app(scope, slowly, sender)

        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        call = asyncio.create_task(send(held, "POST", "/service", raw, [b"x", b"y"], raw_path=b"/service"))
        await half.wait()
        if before == "used":
            assert (await world.send("POST", "/service", headers, b"xy")).status == 200
        else:
            async with world.database.transaction() as tx:
                assert await world.clients.revoke(tx, service.id)
        gate.set()
        assert (await call).status == 401


async def test_a_body_that_does_not_come_is_not_waited_for(
    world: World, shop: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_BODY_SECONDS", 0.05)
    forever = asyncio.Event()

    async def held(scope: Any, receive: Any, sender: Any) -> None:
        async def never() -> Any:
            await forever.wait()
            return await receive()

        await world.app(scope, never, sender)

    headers = shop.signed("POST", "/service", b"x")
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert (await send(held, "POST", "/service", raw, b"x", raw_path=b"/service")).status == 401


async def test_a_process_that_forgot_what_was_used_takes_nothing_from_before(world: World, shop: Service) -> None:
    """WH-03: `memory://` is empty after a restart."""
    headers = shop.signed("GET", "/service", now=shop.now - 5)
    assert (await world.send("GET", "/service", headers)).status == 401
    assert (await shop.call("GET", "/service")).status == 200


async def test_a_call_from_before_the_first_request_counts(world: World, shop: Service) -> None:
    """Policies are compiled at the first request, which may have been signed a second before it came."""
    headers = shop.signed("GET", "/service")
    await asyncio.sleep(1.0)
    assert (await world.send("GET", "/service", headers)).status == 200


async def test_a_client_may_call_often_over_memory(world: World, shop: Service) -> None:
    """A subject's share of `memory://` is 2,000 values; nonces of one client are spread over many."""
    store = world.guard.services.get(Ephemeral)
    assert isinstance(store, MemoryEphemeral)
    for _ in range(300):
        assert (await shop.call("GET", "/service")).status == 200
    assert max(count for count, _ in store._shares._held.values()) < 30
