"""Fixtures all tests share: real servers, started when the first test asks, one of each per test process.

A run of the whole suite has one process per core (pytest-xdist), each with servers, ports and folders of its own.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import hypothesis
import pytest

from routeguard.core.clock import SystemClock
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from tests.backends import PostgresServer, ValkeyServer
from tests.databases import Databases
from tests.fakes import FakeClock
from tests.guardian import watch
from tests.steady import PATIENT

# How long an example takes says how busy the machine is; and the same examples everywhere, so that what is found here
# is what CI finds. `--hypothesis-profile=default` looks for others.
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


_GUARDIAN: Final = pytest.StashKey["subprocess.Popen[bytes]"]()
_LONGEST_ID: Final = 40
_MOST_PROCESSES: Final = 4
"""Each has a PostgreSQL and a Valkey; a container may see more cores than it is given."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes `-n auto` means: one more than cores for a whole run, this one for named tests."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # One more than there are cores: each waits a quarter of its time, for a server to start or a lock to be free.
    return min(cores + 1, _MOST_PROCESSES)


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM (a time limit around pytest) end the servers too, as Ctrl-C does; keep compiled code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Sets that tests are made of have one order in all processes.
    os.environ.setdefault("PYTHONHASHSEED", "0")
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Hundreds of processes are started, and compiling is most of the time each takes to start.
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(config.rootpath / ".pytest_cache" / "bytecode"))
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        # It is told by the end of the pipe, when this process is over, however that comes about.
        config.stash[_GUARDIAN] = watch()


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a long value by its place: it tells a reader nothing, and a random part or a time would be in the name."""
    return f"long-{argname}" if isinstance(val, str | bytes) and len(val) > _LONGEST_ID else None


def pytest_collection_finish() -> None:
    """Keep the collector away from what was collected: it would look at ten thousand tests again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that no other process gives to the same test: those with an address of memory in them."""
    found = [item.nodeid for item in items if re.search(r"\bat 0x[0-9a-f]{6,}", item.nodeid)]
    if found:
        raise pytest.UsageError(f"parametrize with ids (CONTRIBUTING.md); an address is in {found[0]}")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the loop the servers use."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    """A clock a test can set."""
    return FakeClock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The shared PostgreSQL server. Tests that harm it take one of their own: `PostgresServer()`."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """The shared Valkey server."""
    server = ValkeyServer()
    yield server
    server.close()


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    """The address of an empty Valkey."""
    valkey_server.flush()
    return valkey_server.url


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    _aside(lambda: _migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def _migrated_postgresql(postgres_server: PostgresServer) -> Databases:
    url = postgres_server.create()
    _aside(lambda: _migrate(url))
    return Databases(postgres_server, url.rpartition("/")[2])


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'routeguard.db'}"


@pytest.fixture
def empty_postgresql_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database without tables."""
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database without tables, of each kind."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path, _migrated_sqlite: Path) -> str:
    """A SQLite file with all tables."""
    path = tmp_path / "routeguard.db"
    shutil.copyfile(_migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(_migrated_postgresql: Databases) -> Iterator[str]:
    """A PostgreSQL database with all tables, and no row but those of the migrations."""
    url = _migrated_postgresql.lend()
    yield url
    _migrated_postgresql.take_back(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database with all tables, of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A started database with all tables, on each kind; the system's clock."""
    database = Database(database_url, clock=SystemClock(), settings=PATIENT)
    await database.start()
    yield database
    await database.close()


async def _migrate(url: str) -> None:
    database = Database(url, clock=SystemClock(), settings=PATIENT)
    await database.start()
    try:
        await migrate(database)
    finally:
        await database.close()


def _aside(work: Callable[[], Awaitable[Any]]) -> None:
    """Run `work` on a loop of its own, whatever runs in this thread."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            anyio.run(work)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
