"""Two processes that count in their own memory."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from routeguard import Routeguard, Settings
from routeguard.foundation.ephemeral.one_process import OneProcess

WARNING = "another process of this service runs"
HOLDER = """
import sys
from routeguard.foundation.ephemeral.one_process import OneProcess
OneProcess(sys.argv[1]).look()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def another(deployment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process of the deployment; it is killed at the end, as workers are."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, deployment], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def deployment(settings: Settings) -> str:
    return f"{settings.issuer} {settings.database_url} {Path.cwd()}"


def served(settings: Settings) -> None:
    guard: Routeguard = Routeguard(settings, identify=lambda _: None)
    app = FastAPI(openapi_url=None)
    guard.install(app)
    with TestClient(app):
        pass


def test_a_second_worker_warns_in_development_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    assert not settings.production
    with another(deployment(settings)):
        served(settings)
        assert WARNING in caplog.text
        caplog.clear()
        # Another service on the same machine is none of this one's.
        served(Settings(issuer="http://127.0.0.1:9000"))
        assert WARNING not in caplog.text
    served(settings)
    assert WARNING not in caplog.text


def test_guards_of_one_process_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.WARNING)
    guards = [Routeguard(Settings(), identify=lambda _: None) for _ in range(2)]
    apps = [FastAPI(openapi_url=None) for _ in guards]
    for guard, app in zip(guards, apps, strict=True):
        guard.install(app)
    with TestClient(apps[0]), TestClient(apps[1]):
        pass
    served(Settings())
    assert WARNING not in caplog.text


def test_the_lock_is_private_and_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one = OneProcess("a deployment")
    one.look()
    (lock,) = tmp_path.iterdir()
    assert lock.stat().st_mode & 0o777 == 0o600
    asyncio.run(one.close())
    lock.unlink()
    (tmp_path / "elsewhere").write_text("kept")
    Path(lock).symlink_to(tmp_path / "elsewhere")
    one.look()
    asyncio.run(one.close())
    assert (tmp_path / "elsewhere").read_text() == "kept"
