"""Two processes of the identity service are one to those who call it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest

from routeguard.foundation.signatures.models import Message
from routeguard.foundation.signatures.profile import ClientSigner
from tests.servers import run, running

pytestmark = pytest.mark.timeout(240)
ISSUER = "http://127.0.0.1:8000"
BODY = b'{"token": "x"}'
CALL = Message.of("POST", ISSUER + "/oauth/introspect", headers={"content-type": "application/json"}, body=BODY)


def until(condition: Callable[[], bool], patience: float = 60) -> None:
    """Wait for something that has to happen."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_a_signature_counts_once_and_a_revocation_everywhere(
    postgresql_url: str, valkey_url: str, tmp_path: Path
) -> None:
    """WH-03, OPS-07: 10 signatures, each sent to both at once; then the client is revoked by a third process."""
    values = {
        "ROUTEGUARD_ISSUER": ISSUER,
        "ROUTEGUARD_ENVIRONMENT": "development",
        "ROUTEGUARD_DATABASE_URL": postgresql_url,
        "ROUTEGUARD_EPHEMERAL_URL": valkey_url,
        "ROUTEGUARD_SECRET": "kR2v_9qLm4tXw7Zs-Jd81hPbNfYcVuGa0oE5iT3",
    }
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    match = re.search(r"(cli_\S+)\nsecret: (rgs_\S+)", run(tmp_path, "client", "create", "shop", **values).stdout)
    assert match is not None
    signer = ClientSigner.of(match[1], match[2])
    options = ("serve", "--port", "0", "--drain", "0")
    with (
        running(folders[0], *options, **values) as one,
        running(folders[1], *options, **values) as two,
        httpx.Client(timeout=60) as http,
        ThreadPoolExecutor(4) as threads,
    ):

        def send(url: str, headers: dict[str, str]) -> int:
            return http.post(url + "/oauth/introspect", content=BODY, headers={**CALL.headers, **headers}).status_code

        def call(url: str) -> int:
            return send(url, signer.headers(CALL, now=time.time()))

        def race() -> bool:
            """Send one signature four times at once; return whether every answer could be told."""
            headers = signer.headers(CALL, now=time.time())
            tries = [threads.submit(send, server.url, headers) for server in (one, two, one, two)]
            statuses = sorted(attempt.result() for attempt in tries)
            # A machine too busy to ask its store answers 503, and that is not yes either.
            assert statuses.count(200) <= 1
            assert set(statuses) <= {200, 401, 503}
            return statuses == [200, 401, 401, 401]

        for _ in range(10):
            until(race)
        until(lambda: (call(one.url), call(two.url)) == (200, 200))
        assert run(tmp_path, "client", "revoke", match[1], **values).returncode == 0
        until(lambda: (call(one.url), call(two.url)) == (401, 401))
