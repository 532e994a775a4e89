"""`routeguard user`: accounts by hand, for the first admin and for emergencies."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from getpass import getpass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from cyclopts import App, Parameter

from routeguard.cli.main import COULD_NOT_RUN, GOOD, complain
from routeguard.core.errors import ConfigError

if TYPE_CHECKING:
    from routeguard.core.services import Services

T = TypeVar("T")

app: Final = App(name="user", help="Create, list, disable and enable users; change roles and passwords.")


@app.command
def create(
    email: str,
    *,
    name: Annotated[str, Parameter(help="The display name.")] = "",
    role: Annotated[str | None, Parameter(help="The site-wide role; the first of the settings unless given.")] = None,
    password_stdin: Annotated[bool, Parameter(negative=(), help="Read the password from standard input.")] = False,
) -> int:
    """Create a user whose address counts as confirmed. Without --password-stdin a password is made and printed."""
    given = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    return _run(lambda services: _create(services, email, name, role, given))


@app.command(name="list")
def list_(*, format: Literal["table", "json"] = "table") -> int:  # noqa: A002 - the option's name
    """List all users."""
    return _run(lambda services: _list(services, format))


@app.command
def disable(user: Annotated[str, Parameter(help="An id or an e-mail address.")]) -> int:
    """Suspend a user, and revoke all sessions of the user."""
    return _run(lambda services: _set_suspended(services, user, suspended=True))


@app.command
def enable(user: Annotated[str, Parameter(help="An id or an e-mail address.")]) -> int:
    """Let a disabled user in again."""
    return _run(lambda services: _set_suspended(services, user, suspended=False))


@app.command
def role(user: Annotated[str, Parameter(help="An id or an e-mail address.")], role: str) -> int:
    """Give a user another site-wide role."""
    return _run(lambda services: _set_role(services, user, role))


@app.command
def password(user: Annotated[str, Parameter(help="An id or an e-mail address.")]) -> int:
    """Set another password of a user, and revoke all sessions. It is asked for, or read from standard input."""
    given = _ask() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    return _run(lambda services: _set_password(services, user, given))


def _ask() -> str:
    """Ask twice, so that a typing error locks no user out. Raises ConfigError when the answers differ."""
    first = getpass("New password: ")
    if getpass("Once more: ") != first:
        raise ConfigError("the two passwords differ; nothing was changed")
    return first


def _run(work: Callable[[Services], Awaitable[int]]) -> int:
    async def inside() -> int:
        async with started() as services:
            return await work(services)

    return asyncio.run(inside())


@asynccontextmanager
async def started() -> AsyncIterator[Services]:
    """Start what the identity service is made of, without serving. Raises ConfigError, Unavailable."""
    from routeguard.app import Routeguard  # noqa: PLC0415 - slow to import

    guard: Routeguard[Any] = Routeguard()
    await guard.start()
    try:
        yield guard.services
    finally:
        await guard.close()


async def _create(services: Services, email: str, name: str, role: str | None, given: str | None) -> int:
    from routeguard.cli.accounts import make_account  # noqa: PLC0415 - slow to import

    made = await make_account(services, email, name=name, role=role, password=given)
    if made is None:
        complain("A user with this address exists.")
        return COULD_NOT_RUN
    lines = [f"id:       {made.id}", f"email:    {made.email}", f"role:     {made.role}"]
    if given is None:
        lines += [f"password: {made.password}   (shown this once)"]
    sys.stdout.write("\n".join(lines) + "\n")
    return GOOD


async def _list(services: Services, style: str) -> int:
    from routeguard.foundation.db.database import Database  # noqa: PLC0415 - slow to import
    from routeguard.identity.users.service import Users  # noqa: PLC0415 - the same

    users: list[Any] = []
    async with services.get(Database).read() as tx:
        while page := await services.get(Users).list(tx, after=users[-1].id if users else ""):
            users += page
    rows = [
        {
            "id": user.id,
            "email": user.email,
            "name": user.name,
            "role": user.role,
            "email_verified": user.email_verified,
            "disabled": user.suspended_at is not None,
            "created_at": user.created_at.isoformat(timespec="seconds"),
        }
        for user in users
    ]
    if not rows and style != "json":
        sys.stdout.write("There are no users yet: `routeguard user create EMAIL` makes one.\n")
    elif style == "json":
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        print_table(("id", "email", "name", "role", "email_verified", "disabled"), rows)
    return GOOD


def print_table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Print rows as a table on standard output; markup in the values means nothing."""
    from rich.console import Console  # noqa: PLC0415 - only where it is drawn
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_words(row[column])) for column in columns))
    # Piped into another program, lines are as long as they are.
    console = Console()
    Console(width=None if console.is_terminal else 400).print(table)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(character if character.isprintable() else "?" for character in str(value))


async def _set_suspended(services: Services, wanted: str, *, suspended: bool) -> int:
    from routeguard.foundation.db.database import Database  # noqa: PLC0415 - slow to import
    from routeguard.identity.users.service import Users  # noqa: PLC0415 - the same

    users = services.get(Users)
    async with services.get(Database).transaction() as tx:
        user: Any = await _find(users, tx, wanted)
        if user is None:
            return COULD_NOT_RUN
        if suspended:
            await users.suspend(tx, user.id)
        else:
            await users.restore(tx, user.id)
    said = "is disabled, and all sessions have ended" if suspended else "is enabled, and may sign in"
    sys.stdout.write(f"{_words(user.email)} ({user.id}) {said}.\n")
    return GOOD


async def _find(users: Any, tx: Any, wanted: str) -> Any:
    """Return the user of an id or address; complain when there is none."""
    user = await (users.find_by_email(tx, wanted) if "@" in wanted else users.get(tx, wanted))
    if user is None:
        complain("There is no such user.")
    return user


async def _set_role(services: Services, wanted: str, role: str) -> int:
    from routeguard.foundation.db.database import Database  # noqa: PLC0415 - slow to import
    from routeguard.identity.users.service import Users  # noqa: PLC0415 - the same

    users = services.get(Users)
    async with services.get(Database).transaction() as tx:
        user: Any = await _find(users, tx, wanted)
        if user is None:
            return COULD_NOT_RUN
        await users.set_role(tx, user.id, role)
    sys.stdout.write(f"{_words(user.email)} ({user.id}) has the role {role}; before, {_words(user.role)}.\n")
    return GOOD


async def _set_password(services: Services, wanted: str, given: str) -> int:
    from routeguard.cli.accounts import set_password  # noqa: PLC0415 - slow to import
    from routeguard.foundation.db.database import Database  # noqa: PLC0415 - the same
    from routeguard.identity.users.service import Users  # noqa: PLC0415 - the same

    async with services.get(Database).read() as tx:
        user: Any = await _find(services.get(Users), tx, wanted)
    if user is None:
        return COULD_NOT_RUN
    ended = await set_password(services, user, given)
    sys.stdout.write(f"{_words(user.email)} ({user.id}) has another password; sessions ended: {ended}.\n")
    return GOOD
