"""An identity service that tests share, per kind of database, and an app that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.backends import PostgresServer
from tests.remote.world import App, Service


@pytest.fixture(scope="session")
def _on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("remote")
    yield from _running(directory, f"sqlite:///{directory}/identity.db")


@pytest.fixture(scope="session")
def _on_postgresql(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Service]:
    yield from _running(tmp_path_factory.mktemp("remote"), postgres_server.create())


@pytest.fixture(params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest) -> Service:
    """A real process that serves, on each database. Both go on until the last test, whatever the order of tests."""
    service: Service = request.getfixturevalue(f"_on_{request.param}")
    return service


@pytest.fixture
async def service(running: Service) -> AsyncIterator[Service]:
    """The same, with the means to change what it serves. A test that harms the process heals it."""
    async with running.managed():
        yield running


@pytest.fixture
async def app(service: Service) -> AsyncIterator[App]:
    """An app that asks it."""
    async with App.of(service) as app:
        yield app


def _running(directory: Path, url: str) -> Iterator[Service]:
    service = Service(directory, url)
    service.start()
    yield service
    service.close()
