"""Two replicas that tests share, and two with servers of their own to be broken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.backends import PostgresServer, ValkeyServer
from tests.replicas.world import Deployment, Person, deployed


@pytest.fixture(scope="session")
def _deployment(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> Iterator[Deployment]:
    url = postgres_server.create()
    directory = tmp_path_factory.mktemp("replicas")
    with deployed(directory, database_url=url, ephemeral_url=valkey_server.url) as made:
        yield made
    postgres_server.drop(url)


@pytest.fixture
def deployment(_deployment: Deployment) -> Deployment:
    """Two replicas on one PostgreSQL and one Valkey. A test may end them; the next one finds them running."""
    _deployment.heal()
    return _deployment


@pytest.fixture
async def person(deployment: Deployment) -> AsyncIterator[Person]:
    """Somebody signed in."""
    async with Person(deployment) as made:
        yield await made.arrive()
