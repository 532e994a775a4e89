"""Over a socket: uvicorn on the first processor, sixteen connections of wrk on the second, both on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import BODY, BROWSER, JSON_POST, WIDE

ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def served(kind: str) -> Iterator[tuple[int, str]]:
    """Run a server process on processor 0; yield its port and the cookie of who is signed in."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serve", kind, str(listener.fileno())],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {0}),  # noqa: PLW1509 - no other thread runs here
        )
        try:
            assert process.stdout is not None
            cookie = process.stdout.readline().strip()
            assert cookie, "the server did not start"
            yield listener.getsockname()[1], cookie
        finally:
            process.terminate()
            process.wait(20)


def script(folder: Path, method: str, cookie: str) -> Path:
    """Write wrk's script: the request, and nothing but answers of 200."""
    headers = [*BROWSER, (b"cookie", cookie.encode()), *(JSON_POST if method == "POST" else [])]
    lines = [f'wrk.method = "{method}"']
    # wrk sends a length of its own, and a host unless one is named just so: a request with two is refused.
    lines += [
        f'wrk.headers["{name.decode().title()}"] = "{value.decode()}"'
        for name, value in headers
        if name != b"content-length"
    ]
    if method == "POST":
        lines.append(f"wrk.body = [[{BODY.decode()}]]")
    path = folder / f"{method}.lua"
    path.write_text("\n".join(lines))
    return path


def load(port: int, file: Path, seconds: float) -> float:
    """Return the requests a second of one run on processor 1."""
    done = subprocess.run(
        [
            "taskset",
            "-c",
            "1",
            "wrk",
            "-t1",
            f"-c{WIDE}",
            f"-d{seconds:g}s",
            "-s",
            str(file),
            f"http://127.0.0.1:{port}/x",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Non-2xx" not in done.stdout, done.stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


def figures(*, rounds: int = 5, seconds: float = 2) -> list[dict[str, Any]]:
    """Load bare and guarded in turns; return the median of the rounds' ratios."""
    if shutil.which("wrk") is None or len(os.sched_getaffinity(0)) < 2:
        print("over a socket: needs wrk and two processors", file=sys.stderr)
        return []
    found = []
    with tempfile.TemporaryDirectory() as name, served("bare") as bare, served("six") as guarded:
        for method in ("GET", "POST"):
            file = script(Path(name), method, guarded[1])
            for port, _ in (bare, guarded):
                load(port, file, 1)
            pairs = [(load(bare[0], file, seconds), load(guarded[0], file, seconds)) for _ in range(rounds)]
            ratio = statistics.median(ours / theirs for theirs, ours in pairs)
            spread = [round(ours / theirs, 2) for theirs, ours in pairs]
            plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            found.append({"method": method, "ratio": ratio, "bare": plain, "guarded": ours, "rounds": spread})
            time.sleep(0.5)
    return found
