"""An identity service that tests share, per kind of database, and an app that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.remote.world import App, Service


@pytest.fixture(scope="package", params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A real process that serves, on each database."""
    directory = tmp_path_factory.mktemp("remote")
    if request.param == "sqlite":
        url = f"sqlite:///{directory}/identity.db"
    else:
        url = request.getfixturevalue("postgres_server").create()
    service = Service(directory, url)
    service.start()
    yield service
    service.close()


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
