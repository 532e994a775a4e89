"""`routeguard config`: the settings in force, where each comes from, and what is wrong with them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal

from cyclopts import App

from routeguard.cli.main import FINDINGS, GOOD, complain
from routeguard.cli.tls import server_context
from routeguard.cli.user import print_table
from routeguard.core.errors import ConfigError
from routeguard.core.redaction import HIDDEN, redact_url
from routeguard.core.secret import Secret
from routeguard.settings import Settings

app: Final = App(name="config", help="Show the settings in force.")

_SIZES: Final = frozenset({"body_limit"})
_ADDRESSES: Final = frozenset({"database_url", "ephemeral_url", "url"})
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}://")


@app.command
def show(*, format: Literal["table", "json"] = "table") -> int:  # noqa: A002 - the option's name
    """Show every setting, its value without secrets, and where it comes from. Exit 1 when something is wrong."""
    settings, findings = Settings.read()
    findings += settings.findings()
    try:
        server_context(settings.tls)
    except ConfigError as error:
        findings += error.findings
    rows = [
        {
            "setting": name,
            "value": _in_force(settings, name) or _shown(name, value),
            "source": settings.provenance.get(name, "default"),
        }
        for name, value in flatten(settings)
    ]
    if format == "json":
        sys.stdout.write(json.dumps({"settings": rows, "findings": findings}, indent=2) + "\n")
    else:
        print_table(("setting", "value", "source"), rows)
    if not settings.production:
        later = replace(settings, environment="production").findings()
        new = [finding for finding in later if finding not in findings]
        if new and format == "table":
            sys.stdout.write("\n  - ".join(["\nProduction would refuse:", *new]) + "\n")
    if findings:
        complain("Something is wrong:", *findings)
        return FINDINGS
    return GOOD


def _in_force(settings: Settings, name: str) -> str | None:
    """Return what a setting comes to where its value alone does not say, or None."""
    if name == "environment":
        return "test" if settings.testing else "production" if settings.production else "development"
    if name == "users.require_verified_email":
        return str(settings.users.verified_email_required(production=settings.production))
    if name == "secret":
        made = "missing" if settings.production else "generated, in .routeguard/secret"
        return HIDDEN if settings.secret is not None else made
    return None


def _shown(name: str, value: Any) -> str:
    if isinstance(value, int) and name.rpartition(".")[2] in _SIZES:
        for size, unit in ((1024 * 1024, "MB"), (1024, "KB")):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
    if name.rpartition(".")[2] in _ADDRESSES and not _URL.match(str(value)):
        # No URL, so nothing tells where a password stands in it: `host=db password=...`.
        return HIDDEN
    return redact(value)


def flatten(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of a tree of settings."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "provenance":
            continue
        if field.name == "own":
            for name, branch in value.items():
                yield from flatten(branch, f"{name}.")
            continue
        if is_dataclass(value):
            yield from flatten(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def redact(value: Any) -> str:
    """Return a setting as text without what must not be seen: secrets, and passwords inside addresses."""
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, tuple):
        return ", ".join(redact(item) for item in value)
    if isinstance(value, timedelta):
        return _duration(value)
    text = "" if value is None else str(value)
    return redact_url(text) if "://" in text else HIDDEN if ":" in text and "@" in text else text


def _duration(value: timedelta) -> str:
    """Return a duration as it would be written in the settings."""
    seconds = value.total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s"
