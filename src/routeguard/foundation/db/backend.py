"""What a database product must offer to `Database`. Two exist: SQLite and PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from routeguard.foundation.db.errors import Outage


class Prepared(Protocol):
    """A statement that is run often. Its parameters are the statement's `bindparam`s, by name."""

    async def one(self, **params: Any) -> tuple[Any, ...] | None:
        """Return the first row, or None. Raises Unavailable."""
        ...


class Backend(Protocol):
    """One product: two engines, and the driver itself for the hot path."""

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        """The name SQLAlchemy knows it by."""
        ...

    @property
    def url(self) -> str:
        """The URL by which a second object has the same database."""
        ...

    @property
    def outage(self) -> Outage:
        """Where it is, and whether it is away."""
        ...

    @property
    def writes(self) -> AsyncEngine:
        """Connections on which BEGIN is said."""
        ...

    @property
    def reads(self) -> AsyncEngine:
        """Connections in autocommit, or in transactions where only these have limits. Once `known`."""
        ...

    async def start(self) -> None:
        """Open what is opened once."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...

    @property
    def known(self) -> bool:
        """Whether `reads` is final. It depends on what stands before the server."""
        ...

    async def learn(self) -> None:
        """Make it known. Raises Unavailable."""
        ...

    async def check(self) -> None:
        """Look, before the first request, whether the settings fit what is there. Raises Misconfigured, Unavailable."""
        ...

    def write_lock(self) -> AbstractAsyncContextManager[None]:
        """Wait for a writer's turn, where writers take turns. Raises Unavailable when that takes too long."""
        ...

    async def lift_foreign_keys(self, connection: AsyncConnection) -> None:
        """Let migrations make tables anew, before their transaction begins. The connection is not used again."""
        ...

    async def lift_statement_timeouts(self, connection: AsyncConnection) -> None:
        """Lift the limits on how long a statement of this transaction may take, for migrations."""
        ...

    def prepare(self, statement: sa.Select[Any]) -> Prepared:
        """Compile a statement for the driver."""
        ...
