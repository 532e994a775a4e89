"""Apps and services of other kinds: certificates on both sides, tokens only the service verifies, users with more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from routeguard import ClientTls, Routeguard, Settings, User
from routeguard.core.errors import Unavailable
from routeguard.foundation.signatures.keys import new_secret
from routeguard.remote.transport import Transport
from tests.backends import free_port
from tests.cli.test_tls import Authority, serving
from tests.remote.world import App, Service, until
from tests.servers import run

COVERS = ("remote/api_keys", "remote/feature")

pytestmark = pytest.mark.anyio

SECRET = new_secret()


@asynccontextmanager
async def a_service(directory: Path, **values: str) -> AsyncIterator[Service]:
    """A process of its own, with `values` in its environment."""
    service = Service(directory, f"sqlite:///{directory}/identity.db")
    service._values.update(values)
    service.replica._values = dict(service._values)
    algorithm = values.get("ROUTEGUARD_TOKENS_ALGORITHM")
    if algorithm is not None:
        service._settings = replace(service._settings, tokens=replace(service._settings.tokens, algorithm=algorithm))
    service.start()
    try:
        async with service.managed():
            yield service
    finally:
        service.close()


async def test_a_token_that_only_the_service_verifies_is_for_one_app(tmp_path: Path):
    """JWT-21"""
    async with a_service(tmp_path, ROUTEGUARD_TOKENS_ALGORITHM="HS256") as service:
        ann = await service.person()
        async with App.of(service) as meant:

            async def taken() -> bool:
                return await meant.status("/me", ann.bearer) == 200

            await until(taken)
            assert meant.asked > 0
        async with App.of(service, audience="https://another.example") as other:

            async def refused() -> bool:
                return await other.status("/me", ann.bearer) == 401

            await until(refused)
            assert await other.status("/me", ann.cookies) == 200


async def test_the_access_token_in_its_cookie(service: Service, app: App):
    ann = await service.person()
    shown = ("cookie", f"routeguard-access={ann.token}")
    answer = await app.send("/me", shown)
    assert answer.status == 200
    assert json.loads(answer.body)["id"] == ann.user.id
    foreign = (("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"))
    assert (await app.send("/me", shown, *foreign, method="POST")).status == 403
    await service.end(ann)

    async def refused() -> bool:
        return await app.status("/me", shown) == 401

    await until(refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer(User):
    """With a field the service does not know."""

    plan: str = field(default="free", metadata={"public": True})


async def test_a_field_that_is_not_told_is_no_default(service: Service):
    """SES-26"""
    ann = await service.person()
    async with App.of(service, user=Customer) as app:
        assert await app.status("/me", ann.bearer) == 503
        assert await app.status("/me", ann.cookies) == 503


async def test_a_service_that_asks_for_certificates(tmp_path: Path):
    ours = Authority(tmp_path, "ours")
    certificate, key = ours.issue("service", ExtendedKeyUsageOID.SERVER_AUTH)
    shown = ours.issue("app", ExtendedKeyUsageOID.CLIENT_AUTH)
    url = f"https://127.0.0.1:{free_port()}"
    arguments = ["--tls-certificate", certificate, "--tls-key", key, "--client-ca", str(ours.path)]
    assert run(tmp_path, "migrate", ROUTEGUARD_ENVIRONMENT="development", ROUTEGUARD_ISSUER=url).returncode == 0
    with serving(tmp_path, url, *arguments):
        for tls, gets_in in ((ClientTls(*shown, ca=str(ours.path)), True), (ClientTls(*shown), False), (None, False)):
            guard: Routeguard[User] = Routeguard.remote(
                url,
                "cli_a",
                SECRET,
                tls=tls,
                settings=Settings(issuer="http://127.0.0.1:9000", environment="development"),
            )
            transport = guard.services.get(Transport)
            await transport.start()
            try:
                if gets_in:
                    assert (await transport.fetch("/.well-known/jwks.json", limit=65536)).status == 200
                    assert (await transport.call("GET", "/oauth/invalidations", limit=65536)).status == 401
                else:
                    with pytest.raises(Unavailable):
                        await transport.fetch("/.well-known/jwks.json", limit=65536)
            finally:
                await transport.close()
