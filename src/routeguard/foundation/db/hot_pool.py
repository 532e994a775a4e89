"""The driver itself for the hot path: idle connections, and statements that are only text by now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from routeguard.core.errors import Unavailable
from routeguard.foundation.db.errors import fault_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from routeguard.foundation.db.errors import Outage
    from routeguard.foundation.db.watched import WatchedConnection


class Source(Protocol):
    """Where connections come from."""

    @property
    def outage(self) -> Outage:
        """Where the server is, and whether it is away."""
        ...

    @property
    def pooled(self) -> bool:
        """Whether a pooler stands before the server (see `pooler`)."""
        ...

    @property
    def local_limits(self) -> bytes:
        """The statement that sets the limits of one transaction."""
        ...

    async def connect(self, *, autocommit: bool = False) -> WatchedConnection:
        """Open a connection."""
        ...


class HotPool:
    """Idle connections in a list, last used first; a semaphore bounds them and the wait for one."""

    def __init__(self, source: Source, *, size: int, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._size = size
        self._places = asyncio.Semaphore(size)
        self._idle: list[WatchedConnection] = []

    def start(self) -> None:
        """Count anew: who held a place in an event loop that has ended gives none back."""
        self._places = asyncio.Semaphore(self._size)

    async def fetch(self, text: bytes, params: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row of a query. Raises Unavailable."""
        places = self._places  # A start counts anew, and what ends late must give nothing back to that.
        if places.locked():
            await self._wait(places)
        else:
            await places.acquire()
        try:
            row = await self._query(text, params)
        except psycopg.ProgrammingError as error:
            if (missing := self._source.outage.incomplete(error)) is not None:
                raise missing from None
            raise
        except (psycopg.Error, OSError) as error:
            raise fault_of(error, self._source.outage) from None
        else:
            self._source.outage.back()
            return row
        finally:
            places.release()

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def _wait(self, places: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await places.acquire()
        except TimeoutError:
            raise Unavailable("database: pool exhausted") from None

    async def _query(self, text: bytes, params: Mapping[str, Any]) -> tuple[Any, ...] | None:
        connection = await self._take()
        answered = False
        try:
            if self._source.pooled:
                row = await self._query_in_transaction(connection, text, params)
            else:
                row = await (await connection.execute(text, params)).fetchone()
            answered = True
            return row
        finally:
            # After an error or a cancellation it is unknown what the connection would say next.
            if answered:
                self._idle.append(connection)
            else:
                connection.pgconn.finish()

    async def _query_in_transaction(
        self, connection: WatchedConnection, text: bytes, params: Mapping[str, Any]
    ) -> tuple[Any, ...] | None:
        """Run a query behind a pooler: its limits hold for one transaction, all of which leaves in one go."""
        async with connection.pipeline():
            await connection.execute(b"BEGIN")
            await connection.execute(self._source.local_limits)
            cursor = await connection.execute(text, params)
            await connection.execute(b"COMMIT")
        row: tuple[Any, ...] | None = await cursor.fetchone()
        return row

    async def _take(self) -> WatchedConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale:
                return connection
            await connection.close()
        return await self._source.connect(autocommit=True)


class PreparedText:
    """A compiled statement with the parameters that never change. Implements `backend.Prepared`."""

    __slots__ = ("_fixed", "_pool", "_text")

    def __init__(self, pool: HotPool, text: bytes, fixed: Mapping[str, Any]) -> None:
        self._pool = pool
        self._text = text
        self._fixed = fixed

    async def one(self, **params: Any) -> tuple[Any, ...] | None:
        """Return the first row, or None. Raises Unavailable."""
        return await self._pool.fetch(self._text, {**self._fixed, **params} if self._fixed else params)
