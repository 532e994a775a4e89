"""`routeguard client`: the services that may ask this one. Their secrets are shown once."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from routeguard.cli.main import COULD_NOT_RUN, GOOD, complain
from routeguard.cli.user import print_table, started
from routeguard.core.errors import ConfigError
from routeguard.core.rate import parse_duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from routeguard.foundation.db.database import Transaction
    from routeguard.identity.oauth_server.service import Clients

app: Final = App(name="client", help="Services that may ask this one: create, list, rotate, revoke.")

_LONGEST_OVERLAP: Final = 30
"""Days."""


@app.command
def create(name: Annotated[str, Parameter(help="What the service is called, for people.")]) -> int:
    """Register a service. Its id and its secret are printed; the secret is nowhere else.

    A name that another service has is allowed, and said: it may be the same one, registered twice.
    """

    async def work(clients: Clients, tx: Transaction) -> list[str]:
        namesakes = [client.id for client in await clients.list(tx) if client.name == name]
        client_id, secret = await clients.create(tx, name)
        lines = [f"id:     {client_id}", f"secret: {secret}   (shown this once)"]
        if namesakes:
            lines.append(f"Called the same already: {', '.join(namesakes)}. `client rotate` gives one a new secret.")
        return lines

    return _run(work)


@app.command(name="list")
def list_(*, format: Literal["table", "json"] = "table") -> int:  # noqa: A002 - the option's name
    """List all services that may ask this one."""

    async def work(clients: Clients, tx: Transaction) -> list[str]:
        rows: list[dict[str, Any]] = [
            {
                "id": client.id,
                "name": client.name,
                "created_at": client.created_at.isoformat(timespec="seconds"),
                "old_secret_until": client.previous_until.isoformat(timespec="seconds")
                if client.previous_until
                else "",
            }
            for client in await clients.list(tx)
        ]
        if format == "json":
            return [json.dumps(rows, indent=2)]
        if not rows:
            return ["There are no clients yet: `routeguard client create NAME` makes one."]
        print_table(("id", "name", "created_at", "old_secret_until"), rows)
        return []

    return _run(work)


@app.command
def rotate(
    client: Annotated[str, Parameter(help="The id of the service.")],
    *,
    overlap: Annotated[str, Parameter(help="How long the old secret works on; 0 ends it at once.")] = "1d",
) -> int:
    """Give a service another secret, which is printed and nowhere else."""
    lasting = _overlap(overlap)

    async def work(clients: Clients, tx: Transaction) -> list[str] | None:
        secret = await clients.rotate(tx, client, overlap=lasting)
        if secret is None:
            return None
        said = f"The old one works for another {overlap}." if lasting else "The old one works no more."
        return [f"secret: {secret}   (shown this once)", said]

    return _run(work)


@app.command
def revoke(client: Annotated[str, Parameter(help="The id of the service.")]) -> int:
    """End a service's access for good, within a second and in every process."""

    async def work(clients: Clients, tx: Transaction) -> list[str] | None:
        return [f"{client} is revoked."] if await clients.revoke(tx, client) else None

    return _run(work)


def _overlap(text: str) -> timedelta:
    lasting = parse_duration("0s" if text == "0" else text)
    if lasting.total_seconds() > _LONGEST_OVERLAP * 86400:
        raise ConfigError(f"--overlap is at most {_LONGEST_OVERLAP}d: a secret that may be known should not work on")
    return lasting


def _run(work: Callable[[Clients, Transaction], Awaitable[list[str] | None]]) -> int:
    """Do `work` in one transaction and print what it returns, once it is committed; None is an unknown client."""

    async def inside() -> list[str] | None:
        from routeguard.foundation.db.database import Database  # noqa: PLC0415 - slow to import
        from routeguard.identity.oauth_server.service import Clients  # noqa: PLC0415 - the same

        async with started() as services, services.get(Database).transaction() as tx:
            return await work(services.get(Clients), tx)

    lines = asyncio.run(inside())
    if lines is None:
        complain("There is no such client.")
        return COULD_NOT_RUN
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return GOOD
