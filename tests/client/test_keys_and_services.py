"""API keys made and tried through the clients, and a registered service that asks what credentials are worth."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from routeguard import Routeguard
from routeguard.client import AsyncClient, Client, ClientProblem, KeyAuth, SignedAuth
from routeguard.foundation.db.database import Database
from routeguard.identity.oauth_server.service import Clients
from tests.client.conftest import PASSWORD, PATIENCE, Service


@pytest.fixture(scope="module")
def registered(service: Service) -> tuple[str, str]:
    """Return a service's id and secret."""

    async def register() -> tuple[str, str]:
        guard = Routeguard(service.guard.settings)
        await guard.start()
        try:
            async with guard.services.get(Database).transaction() as tx:
                return await guard.services.get(Clients).create(tx, "billing")
        finally:
            await guard.close()

    return asyncio.run(register())


def test_a_life_of_a_key(service: Service) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    with Client(service.url, timeout=PATIENCE) as client:
        client.sign_in("ada@example.com", PASSWORD)
        keys = client.api_keys
        made = keys.create("reports", scopes=["reports:read"], expires_at=soon, networks=["127.0.0.0/8"])
        assert made["scopes"] == ["reports:read"]
        assert [one["id"] for one in keys.list()["api_keys"]] == [made["id"]]
        assert "key" not in keys.get(made["id"])
        assert keys.verify(made["key"], scopes=["reports:read"])["id"] == made["id"]
        with pytest.raises(ClientProblem) as refused:
            keys.verify(made["key"], scopes=["reports:write"])
        assert (refused.value.status, refused.value.code) == (403, "insufficient-scope")
        assert keys.update(made["id"], name="other", expires_at=None)["expires_at"] is None
        assert keys.get(made["id"])["name"] == "other"
        again = keys.rotate(made["id"], overlap=0)
        assert keys.verify(again["key"])["name"] == "other"
        keys.revoke(made["id"])
        with pytest.raises(ClientProblem) as refused:
            keys.verify(again["key"])
        assert (refused.value.status, again["key"] in repr(refused.value)) == (401, False)
        with pytest.raises(ClientProblem) as refused:
            keys.get("key_/../../session")
        assert refused.value.status == 404
    verified = service.calls("/auth/api-keys/verify")
    assert len(verified) == 4
    # A key is tried by itself: the session of whoever tries it has no part in the answer.
    assert not any("cookie" in headers or "authorization" in headers for headers in verified)


def test_keys_by_an_async_client_and_by_a_key(service: Service) -> None:
    """KEY-11: a key manages no keys."""

    async def main() -> Any:
        async with AsyncClient(service.url, timeout=PATIENCE) as client:
            await client.sign_in("bob@example.com", PASSWORD)
            made = await client.api_keys.create("data", remaining=5, rate="100/minute")
            assert (await client.api_keys.list())["total"] == 1
            assert (await client.api_keys.verify(made["key"]))["valid"] is True
        async with AsyncClient(service.url, timeout=PATIENCE, auth=KeyAuth(made["key"])) as client:
            with pytest.raises(ClientProblem) as refused:
                await client.api_keys.create("more")
        return refused.value.status

    assert asyncio.run(main()) == 403


def test_a_service_asks_what_credentials_are_worth(service: Service, registered: tuple[str, str]) -> None:
    with Client(service.url, timeout=PATIENCE) as user:
        user.sign_in("ada@example.com", PASSWORD)
        pair = user.tokens()
        key = user.api_keys.create("data")["key"]
        with Client(service.url, timeout=PATIENCE, auth=SignedAuth(*registered)) as client:
            told = client.introspect(pair.access_token, hint="access_token")
            assert told["active"] is True
            assert told["user"]["email"] == "ada@example.com"
            assert client.introspect(key, hint="api_key", address="192.0.2.1")["active"] is True
            assert client.introspect("nothing of ours") == {"active": False}
            assert "rows" in client.request("GET", "/oauth/invalidations?after=0&window=60")


def test_a_service_signs_for_the_name_the_service_calls_itself(service: Service, registered: tuple[str, str]) -> None:
    """RFC 9421 section 7.2.3: what was signed for one server is no good at another."""
    with Client(service.url, timeout=PATIENCE, auth=SignedAuth(*registered, issuer="https://id.example.com")) as client:
        with pytest.raises(ClientProblem) as refused:
            client.introspect("x")
        assert refused.value.status == 401
    by_another_name = service.url.replace("127.0.0.1", "localhost")
    with Client(by_another_name, timeout=PATIENCE, auth=SignedAuth(*registered, issuer=service.url)) as client:
        assert client.introspect("x") == {"active": False}


def test_a_service_with_the_wrong_secret_is_refused(service: Service, registered: tuple[str, str]) -> None:
    from routeguard.foundation.signatures.keys import new_secret

    with Client(service.url, timeout=PATIENCE, auth=SignedAuth(registered[0], new_secret())) as client:
        with pytest.raises(ClientProblem) as refused:
            client.introspect("x")
        assert refused.value.status == 401
    with pytest.raises(ValueError, match="not a client secret") as wrong:
        SignedAuth(registered[0], registered[1] + "x")
    assert registered[1] not in str(wrong.value)
    assert registered[1] not in repr(SignedAuth(*registered))
