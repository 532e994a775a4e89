"""The command line as people run it: a real process, a real port, a directory of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx

ROUTEGUARD = str(Path(sys.executable).parent / "routeguard")
_PATIENCE = 60.0


def environment(**values: str) -> dict[str, str]:
    """Return the environment without anybody's own settings, plus `values`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROUTEGUARD_")}
    return clean | values


def run(directory: Path, *arguments: str, stdin: str = "", **values: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [ROUTEGUARD, *arguments],
        cwd=directory,
        env=environment(**values),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    url: str
    directory: Path
    passwords: dict[str, str]
    """Of the people it made, by address."""

    def output(self) -> str:
        """Return what it printed so far, mails included."""
        return (self.directory / "stdout").read_text() + (self.directory / "stderr").read_text()


@contextlib.contextmanager
def running(directory: Path, *arguments: str, **values: str) -> Iterator[Running]:
    """Run a serving command until the end of the block; it must then end well by itself."""
    out, err = directory / "stdout", directory / "stderr"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [ROUTEGUARD, *arguments],
            cwd=directory,
            env=environment(**values),
            stdout=stdout,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
        )
        try:
            url = _wait(process, out, err)
            found = re.findall(r"^  (\S+@\S+) +(\S+) +(\w+)$", out.read_text(), re.MULTILINE)
            yield Running(url, directory, {email: password for email, password, _ in found})
            process.terminate()
            assert process.wait(_PATIENCE) in {0, -15}, err.read_text()
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], out: Path, err: Path) -> str:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        text = out.read_text() + err.read_text()
        match = re.search(r"(?:is at|Listening on) (http://\S+)", text)
        if match is not None:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(match[1] + "/nothing-here", timeout=5, verify=False)
                return match[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"the server did not start:\n{out.read_text()}\n{err.read_text()}")
