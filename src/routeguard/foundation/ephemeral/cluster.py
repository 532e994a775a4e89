"""A cluster of Valkey or Redis servers: which of them has a key's slot, and a connection to each that has some.

The map of slots is asked of any server that answers, anew whenever one sends us elsewhere or is lost. A slot that
no server has just now is Unavailable at once, like a single server that is away; the others go on (Redis Cluster
specification, "Redirection and resharding").
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import hiredis

from routeguard.core.errors import Unavailable
from routeguard.core.periodic import Periodic
from routeguard.foundation.ephemeral.connection import Connection
from routeguard.foundation.ephemeral.replies import gives_up, refusal_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routeguard.foundation.ephemeral.connection import Address, Command, Part

logger = logging.getLogger("routeguard.ephemeral")

SLOTS: Final = 16384
_REDIRECTIONS: Final = 3
_PORTS: Final = 65536
_LOOK_AGAIN: Final = 30.0
"""Seconds after which the map is asked for though no server complained."""
_SHORTEST: Final = 0.1
"""Seconds between two questions: a thousand redirected commands are one reason to ask, not a thousand."""

Place = tuple[str, int]


class Cluster:
    """Sends each command to the server that has its slot. `deadline` is in seconds, for one command."""

    def __init__(self, seeds: Sequence[Address], *, deadline: float, greeting: Sequence[Command] = ()) -> None:
        self._deadline = deadline
        self._greeting = greeting
        self._credentials = seeds[0]
        self._seeds: Final = [(seed.host, seed.port) for seed in seeds]
        self._connections: dict[Place, Connection] = {}
        self._owners: list[Connection | None] = [None] * SLOTS
        self._keeping = Periodic("routeguard-valkey-cluster", self._keep, pause=lambda: _LOOK_AGAIN)
        self._refusal: str | None = None

    @property
    def is_up(self) -> bool:
        """Whether every slot has a server that answered last."""
        owners = set(self._owners)
        return None not in owners and all(owner is not None and owner.is_up for owner in owners)

    @property
    def refusal(self) -> str | None:
        """Why the servers refuse us, when that is for a setting, and none lets us in."""
        if any(connection.is_up for connection in self._connections.values()) and self._refusal is None:
            return None
        found = (connection.refusal for connection in self._connections.values())
        return self._refusal or next((finding for finding in found if finding is not None), None)

    async def start(self) -> None:
        """Ask for the map; when no server answers now, go on trying in the background."""
        if self._keeping.running:
            return
        try:
            await self._learn()
        except Unavailable as error:
            logger.warning("the valkey cluster is away: %s", error.what)
            self._keeping.wake()
        self._keeping.start()

    async def close(self) -> None:
        """Close every connection."""
        await self._keeping.close()
        self._owners = [None] * SLOTS
        while self._connections:
            await self._connections.popitem()[1].close()

    async def command(self, slot: int, *parts: Part) -> Any:
        """Send a command to the server that has `slot`, following redirections.

        Raises Unavailable when no server has it or answers, hiredis.ReplyError for any other error reply.
        """
        connection = self._owners[slot]
        asking = False
        for _ in range(_REDIRECTIONS):
            if connection is None:
                break
            try:
                return await _send(connection, parts, asking=asking)
            except Unavailable:
                self._keeping.wake()
                raise
            except hiredis.ReplyError as error:
                word, _, rest = str(error).partition(" ")
                if word in {"TRYAGAIN", "CLUSTERDOWN"} or gives_up(error):
                    break
                if word not in {"MOVED", "ASK"}:
                    raise
                asking = word == "ASK"
                if not asking:
                    self._keeping.wake()
                connection = await self._connect(_place_of(rest, connection.address))
        self._keeping.wake()
        raise Unavailable("valkey: no server has this slot", retry_after=1)

    async def _connect(self, place: Place) -> Connection:
        """Return the connection to a server, made when there is none."""
        found = self._connections.get(place)
        if found is None:
            host, port = place
            address = replace(self._credentials, host=host, port=port)
            found = self._connections[place] = Connection(address, deadline=self._deadline, greeting=self._greeting)
            await found.start()
        return found

    async def _learn(self) -> None:
        """Ask the first server that answers which has which slots. Raises Unavailable when none does."""
        known = sorted(self._connections, key=lambda place: not self._connections[place].is_up)
        for place in dict.fromkeys([*known, *self._seeds]):
            connection = await self._connect(place)
            try:
                rows = await connection.command("CLUSTER", "SLOTS")
            except (Unavailable, hiredis.ReplyError) as error:
                logger.debug("%s:%d tells no slots: %s", *place, error)
                finding = refusal_of(error)
                self._refusal = None if finding is None else f"valkey at {place[0]}:{place[1]} {finding}"
                continue
            try:
                await self._take(rows, connection.address)
            except Unavailable as error:
                logger.warning("%s:%d: %s", *place, error.what)
                continue
            return
        raise Unavailable("valkey: no server of the cluster answers", retry_after=1)

    async def _take(self, rows: list[Any], told_by: Address) -> None:
        """Use a map: rows of first slot, last slot, and servers, of which the first takes commands."""
        owners: list[Connection | None] = [None] * SLOTS
        for first, last, place in _ranges(rows, told_by):
            owner = await self._connect(place)
            owners[first : last + 1] = [owner] * (last + 1 - first)
        self._owners, self._refusal = owners, None
        # Those that have no slots any more are of no use, but for those we began with.
        for place in [place for place, one in self._connections.items() if one not in owners]:
            if place not in self._seeds:
                await self._connections.pop(place).close()

    async def _keep(self) -> None:
        """Hold the map current: when it was found to be wrong, while a server is away, and now and then."""
        learned = False
        try:
            await self._learn()
            learned = True
        except Unavailable as error:
            logger.debug("%s", error.what)
        finally:
            if not (learned and self.is_up):
                self._keeping.wake()
        await asyncio.sleep(_SHORTEST)


async def _send(connection: Connection, parts: Sequence[Part], *, asking: bool) -> Any:
    if not asking:
        return await connection.command(*parts)
    # Both in one turn, so that they leave together: ASKING holds for the next command of the connection only.
    leave, answer = connection.command("ASKING"), connection.command(*parts)
    await leave
    return await answer


def _place_of(rest: str, asked: Address) -> Place:
    """Read ``3999 host:port`` of a redirection. Raises Unavailable for other text.

    Following a redirection is safe: only an authenticated server can send one, and it knows the password already.
    """
    host, _, port = rest.rpartition(" ")[2].rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < _PORTS):
        raise Unavailable("valkey: a redirection that leads nowhere", retry_after=1)
    return (host or asked.host, int(port))


def _ranges(rows: Any, asked: Address) -> list[tuple[int, int, Place]]:
    """Read an answer to CLUSTER SLOTS: ranges, each with its master. Raises Unavailable for anything else."""
    found: list[tuple[int, int, Place]] = []
    try:
        for first, last, (host, port, *_), *_replicas in rows:
            # An empty host means the one we asked.
            found.append((first, last, (host.decode("ascii") if host else asked.host, port)))
        sound = all(0 <= first <= last < SLOTS and 0 < place[1] < _PORTS for first, last, place in found)
    except (TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise Unavailable("valkey: a map of slots that cannot be read", retry_after=1)
    return found
