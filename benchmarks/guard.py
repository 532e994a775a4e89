"""What the guard costs: ``uv run python -m benchmarks.guard``.

``--valkey`` and ``--postgresql`` measure with real stores, ``--socket`` over uvicorn, ``--peers`` other packages in
environments of their own, ``--all`` everything; ``--markdown`` writes what was measured into README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import memory, report, sockets, stores

FOLDER = Path(__file__).parent
COMPOSED = ("fastapi", "pyjwt", "limits", "starlette-csrf", "secure", "slowapi", "litestar", "itsdangerous")
USERS = ("fastapi", "fastapi-users[sqlalchemy]", "aiosqlite", "slowapi", "sqlalchemy<2.1")


def peer(script: str, packages: tuple[str, ...], count: int, rounds: int) -> dict[str, Any]:
    """Measure peers in an environment of their own, on the same machine and by the same harness."""
    command = ["uv", "run", "--no-project", "--python", sys.executable]
    for name in packages:
        command += ["--with", name]
    command += ["python", str(FOLDER / script), str(count), str(rounds)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=900)
    if done.returncode:
        sys.exit(f"{script}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def measure(options: argparse.Namespace) -> report.Results:
    """Measure what was asked for, one after the other: nothing here runs beside anything else."""
    count, rounds = options.count, options.rounds
    results = report.Results(load=report.load())
    results.guard = asyncio.run(memory.figures(count, rounds))
    results.stall = asyncio.run(memory.sign_in_stall())
    if options.valkey:
        results.valkey = asyncio.run(stores.valkey(count, rounds))
    if options.postgresql:
        results.postgresql = asyncio.run(stores.postgresql(count, rounds))
    if options.socket:
        results.sockets = sockets.figures(rounds=min(rounds, 5))
    if options.peers:
        results.peers = peer("peers.py", COMPOSED, count, rounds)
        # A hundred times slower than a bare handler: fewer requests say as much.
        results.users = peer("peer_users.py", USERS, max(count // 10, 16), rounds)
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("valkey", "postgresql", "socket", "peers", "all", "markdown"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--count", type=int, default=2000, help="requests in each round")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if options.all:
        options.valkey = options.postgresql = options.socket = options.peers = True
    logging.disable(logging.CRITICAL)
    results = measure(options)
    print(report.text(results))
    if options.markdown:
        report.write(FOLDER.parent / "README.md", results)


if __name__ == "__main__":
    main()
