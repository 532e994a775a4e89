"""Debian's PgBouncer before a test's PostgreSQL. Skips, saying so, where it is not installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.backends import PostgresServer, free_port

_NOBODY = 65534


class PgBouncer:
    """One process with an ini file of its own. `mode` is session or transaction; `more` are lines of its ini."""

    def __init__(self, server: PostgresServer, mode: str, *more: str) -> None:
        binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if binary is None:
            pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="routeguard-pgbouncer-"))
        lines = (
            "[databases]",
            f"* = host=127.0.0.1 port={server.port} user=postgres",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = any",
            f"pool_mode = {mode}",
            "logfile =",
            "max_client_conn = 500",
            *more,
        )
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        user = _NOBODY if os.geteuid() == 0 else None
        if user is not None:
            for path in (self.folder, self.folder / "pgbouncer.ini"):
                os.chown(path, user, user)
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            [binary, str(self.folder / "pgbouncer.ini")],
            user=user,
            group=user,
            cwd=self.folder,
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.02)

    def url(self, database: str) -> str:
        """Return the URL of a database of the server, `url` of which may be given, through the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database.rpartition('/')[2]}"

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
