"""How figures are shown: beside the lines they are to stay under, and in README.md."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Time
from benchmarks.memory import SIGN_INS

if TYPE_CHECKING:
    from benchmarks.stores import Stored

LINES = {
    "session": (22, 40),
    "session, injected as parameter": (22, 40),
    "all six": (22, 40),
    "all six, Starlette": (15, 22),
}
WIDE_LINES = {"session + limit on Valkey": 75, "session on PostgreSQL": 220}
SOCKET_LINE = 0.65
STALL_LINE = 5
TRIP_LINE = 100
BEGIN = "<!-- performance: begin."
END = "<!-- performance: end -->"


@dataclass
class Results:
    """What was measured; None or nothing where it was not asked for."""

    load: str
    guard: list[dict[str, Any]] = field(default_factory=list)
    stall: tuple[Time, Time] = (Time(0.0, 0.0), Time(0.0, 0.0))
    valkey: Stored | None = None
    postgresql: Stored | None = None
    sockets: list[dict[str, Any]] = field(default_factory=list)
    peers: dict[str, Any] | None = None
    users: dict[str, Any] | None = None


def load() -> str:
    """Return how busy the machine was in the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def text(results: Results) -> str:
    """Return everything as Markdown."""
    return "\n\n".join(part for part in (_machine(results), *_ours(results), *_peers(results)) if part)


def write(path: Path, results: Results) -> None:
    """Put the figures between the markers of a file."""
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    first, _, rest = rest.partition("-->")
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}{first}-->\n{text(results)}\n{END}{after}", "utf-8")


def _machine(results: Results) -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(package)}"
        for name, package in (("FastAPI", "fastapi"), ("Starlette", "starlette"), ("uvicorn", "uvicorn"))
    )
    return (
        f"{time.strftime('%d %B %Y', time.gmtime()).lstrip('0')}, Python {platform.python_version()}, {versions}; "
        f"{os.cpu_count()} cores, load average {results.load} at the start. Microseconds a request on top of the same "
        "framework's bare handler in the same run: on the clock, and in brackets of the processor, which neighbours "
        "disturb less. The line is what we hold ourselves to on a quiet machine."
    )


def _ours(results: Results) -> list[str]:
    parts = [_table("Routeguard", results.guard)]
    if results.valkey is not None:
        stored = results.valkey
        parts += [
            _table("Valkey", stored.figures),
            (
                f"Commands a request, as the server counts: {stored.per_request:g} "
                f"({', '.join(sorted(stored.seen))}). "
                f"A bare trip took {stored.trip:.0f} us; one at a time the line is {stored.trip + TRIP_LINE:.0f} us."
            ),
        ]
    if results.postgresql is not None:
        parts += [
            _table("PostgreSQL", results.postgresql.figures),
            f"Queries a request, from the server's log: {results.postgresql.per_request:g}, without a transaction.",
        ]
    parts.append(_sockets(results.sockets))
    busy, idle = results.stall
    parts.append(
        f"{SIGN_INS} sign-ins at once held the loop up for {busy.wall:.1f} ms at the longest, "
        f"working for {busy.cpu:.1f} ms "
        f"(line {STALL_LINE} ms; {idle.wall:.1f} ms when nothing was done)."
    )
    return parts


def _sockets(figures: list[dict[str, Any]]) -> str:
    if not figures:
        return ""
    rows = ["| uvicorn, 16 connections | of bare | bare | all six | line | rounds |", "|---|--:|--:|--:|--:|---|"]
    rows += [
        f"| {one['method']} | {one['ratio']:.2f} | {one['bare']:.0f}/s | {one['guarded']:.0f}/s | {SOCKET_LINE} | "
        f"{' '.join(str(ratio) for ratio in one['rounds'])} |"
        for one in figures
    ]
    return "\n".join(rows)


def _peers(results: Results) -> list[str]:
    parts = []
    for title, answer in (("peers", results.peers), ("a peer with sessions", results.users)):
        if answer is not None:
            versions = ", ".join(f"{name} {version}" for name, version in answer["versions"].items())
            parts += [_table(title, answer["figures"]), f"With {versions}."]
            if "stall" in answer:
                parts.append(f"{SIGN_INS} sign-ins at once held its loop up for {answer['stall']:.0f} ms.")
    return parts


def _table(title: str, figures: list[dict[str, Any]]) -> str:
    rows = [f"| {title} | | adds | of bare | 16 in flight | line |", "|---|---|--:|--:|--:|--:|"]
    for one in figures:
        name, method = one["name"], one["method"]
        line = str(LINES[name][method == "POST"]) if name in LINES else ""
        if name in WIDE_LINES:
            line = f"16: {WIDE_LINES[name]}"
        rows.append(
            f"| {name} | {method} | {one['over']:.1f} ({one['over_cpu']:.1f}) | {one['ratio']:.2f}x | "
            f"{one['wide_over']:.1f} ({one['wide_over_cpu']:.1f}) | {line} |"
        )
    return "\n".join(rows)
