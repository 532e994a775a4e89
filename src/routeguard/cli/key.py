"""`routeguard key`: the keys that sign access tokens."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Final

from cyclopts import App, Parameter

from routeguard.cli.main import GOOD
from routeguard.cli.user import started

app: Final = App(name="key", help="The keys that sign access tokens: rotate.")


@app.command
def rotate(
    *,
    now: Annotated[
        bool, Parameter(negative=(), help="Sign with it at once and revoke all others, their tokens too.")
    ] = False,
) -> int:
    """Make the next signing key. It is published now and signs later, unless --now is given."""
    return asyncio.run(_rotate(now=now))


async def _rotate(*, now: bool) -> int:
    from routeguard.identity.tokens.keys import SigningKeys  # noqa: PLC0415 - slow to import

    async with started() as services:
        keys = services.get(SigningKeys)
        await keys.rotate(now=now)
        signer = keys.signer()
        for one, waits in keys.in_force():
            does = "signs" if one.key is signer else f"signs in {waits:.0f} seconds" if waits else "verifies"
            sys.stdout.write(f"{one.key.kid}  {one.key.algorithms[0]}  {does}\n")
    return GOOD
