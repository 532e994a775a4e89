"""The outbox: what must happen after a commit, written in it. Delivered at least once, by whichever process is free."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.events import Event
from routeguard.core.periodic import Periodic
from routeguard.core.secret import Purpose, new_token
from routeguard.core.tasks import runs_here
from routeguard.foundation.db.schema import metadata
from routeguard.foundation.db.sealing import Sealer

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.core.secret import DeploymentKeys
    from routeguard.foundation.db.database import Database, Transaction

E = TypeVar("E", bound="Event")
Deliver = Callable[[bytes], Awaitable[None]]

logger = logging.getLogger("routeguard.outbox")

_KIND_LENGTH: Final = 200

outbox: Final = sa.Table(
    "routeguard_outbox",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("kind", sa.String(_KIND_LENGTH), nullable=False),
    # Encrypted: mails hold links that sign in or reset a password.
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("due_at", sa.Float, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("dead_at", sa.Float),
    sa.Index("ix_routeguard_outbox_due", "dead_at", "due_at"),
)

_AT_ONCE: Final = 16
"""Deliveries in flight; each has a place of its own, so that one slow receiver holds up no other."""
_LEASE: Final = 60.0
"""Seconds a process has for what it took; then another may (it has died, or the world is slow)."""
_DEADLINE: Final = 30.0
"""Seconds for one delivery, well within the lease."""
_DRAIN: Final = 3.0
"""Seconds that `close` waits for what is being delivered."""
_POLL: Final = 1.0
"""Seconds until what another process left is noticed; rows of this one are delivered at once."""
_ATTEMPTS: Final = 16
"""With the pauses below, a day and a half."""
_LONGEST_PAUSE: Final = 6.0 * 3600


class _Taken(NamedTuple):
    id: str
    kind: str
    payload: bytes
    attempts: int


class Outbox:
    """Rows of a kind and a payload, each delivered by the function registered for its kind, then deleted.

    At least once, in no particular order. A delivery that raises is tried again later and later, at most sixteen
    times; after that the row stays, marked dead, for a person to look at. A process that dies in the middle loses
    nothing: what it took becomes due again. Payloads are sealed with a key of their own (AES-GCM, NIST SP 800-38D),
    for mails hold links that sign people in; rows sealed with an older secret can still be read. The stored kind ends
    with the label of the deployment: a copy of a database, or another issuer over it, delivers nothing of this one's.
    """

    def __init__(self, database: Database, keys: DeploymentKeys, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._sealer = Sealer(Purpose.OUTBOX, keys)
        self._suffix = f"@{keys.label}"
        self._deliver: dict[str, Deliver] = {}
        self._kinds: dict[type[Event], list[str]] = {}
        self._of_all: list[tuple[Callable[[Any], Awaitable[None]], str]] = []
        self._taking = Periodic("routeguard-outbox", self._take_due, pause=self._pause)
        self._flying: set[asyncio.Task[None]] = set()
        self._full = False
        database.recorder = self._record

    # -- what may be registered before start ---------------------------------------------------------------------------

    def handle(self, kind: str, deliver: Deliver) -> None:
        """Deliver rows of `kind` by `deliver`. Raises ConfigError when the kind is taken."""
        if kind in self._deliver:
            raise ConfigError(f"two deliveries are registered for outbox kind {kind!r}")
        if len(kind) + len(self._suffix) > _KIND_LENGTH:
            # SQLite stores it all the same; PostgreSQL would refuse every transaction that records such an event.
            raise ConfigError(
                f"the outbox kind {kind!r} is longer than {_KIND_LENGTH - len(self._suffix)} characters: give the "
                "listener a shorter name="
            )
        self._deliver[kind] = deliver

    def on(self, event: type[E], listener: Callable[[E], Awaitable[None]], *, name: str | None = None) -> None:
        """Call `listener` with every committed event of exactly this class, at least once.

        `Event` itself stands for all declared classes. Each listener has rows of its own, so that the failure of one
        repeats no other. `name` says in those rows whom they are for (the qualified name unless told otherwise): keep
        it when the function moves. Raises ConfigError when one name listens twice to one class.
        """
        function: Any = listener
        named = name or str(function.__qualname__)
        if event is not Event:
            self.declare(event)
            self._listen(event, function, named)
            return
        if any(named == other for _, other in self._of_all):
            raise ConfigError(f"two listeners to all events are called {named!r}")
        # A row names the class of its event, so that a process without it (another version, while both run) leaves it.
        for declared in self._kinds:
            self._listen(declared, function, named)
        self._of_all.append((function, named))

    def declare(self, *events: type[Event]) -> None:
        """Deliver events of these classes to those who listen to all. Raises ConfigError for a name that is taken."""
        for event in events:
            if event not in self._kinds:
                self._kinds[event] = []
                for listener, named in self._of_all:
                    self._listen(event, listener, named)

    def _listen(self, event: type[E], listener: Callable[[E], Awaitable[None]], named: str) -> None:
        kind = f"event:{event.__name__}:{named}"
        decoder = msgspec.json.Decoder(event)

        async def deliver(payload: bytes) -> None:
            await listener(decoder.decode(payload))

        self.handle(kind, deliver)
        self._kinds[event].append(kind)

    # -- writing, in the caller's transaction --------------------------------------------------------------------------

    async def put(self, tx: Transaction, kind: str, payload: bytes) -> None:
        """Write a row; it is delivered once `tx` has committed, or never."""
        row_id = "obx_" + new_token(16)
        stored = kind + self._suffix
        sealed = self._sealer.seal(payload, _bound_to(row_id, stored))
        await tx.execute(
            sa.insert(outbox).values(id=row_id, kind=stored, payload=sealed, due_at=self._clock.time(), attempts=0)
        )
        tx.after_commit(self._taking.wake)

    async def _record(self, tx: Transaction, events: list[Event]) -> None:
        for event in events:
            if type(event) not in self._kinds and self._of_all:
                # A log of all events that silently lacks some is worse than none: the transaction is undone.
                raise TypeError(f"{type(event).__name__} is recorded, and no feature declares it (Feature.events)")
            for kind in self._kinds.get(type(event), ()):
                await self.put(tx, kind, msgspec.json.encode(event))

    # -- delivering ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the worker."""
        self._flying, self._full = set(), False
        self._taking.start()
        self._taking.wake()

    async def close(self) -> None:
        """Take no more, and give what is being delivered three seconds to end. The rest becomes due again."""
        await self._taking.close(patience=None)
        flying = {task for task in self._flying if runs_here(task)}
        if flying:
            _, left = await asyncio.wait(flying, timeout=_DRAIN)
            for task in left:
                task.cancel()
            if left:
                logger.warning("the outbox was stopped while delivering; what it held becomes due again")
                await asyncio.wait(left)

    async def deliver_due(self) -> int:
        """Deliver everything that is due, once. Returns how many rows were taken. Raises Unavailable."""
        count = 0
        while taken := await self._take(_AT_ONCE):
            count += len(taken)
            await asyncio.gather(*(self._deliver_one(row) for row in taken))
        return count

    async def dead(self) -> int:
        """Return how many rows were given up. Raises Unavailable."""
        async with self._database.read() as tx:
            statement = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.dead_at.is_not(None))
            return int(await tx.scalar(statement))

    async def _take_due(self) -> None:
        """Begin to deliver as much as there are places for. Raises Unavailable; the rows are safe in the database."""
        self._full = False
        free = _AT_ONCE - len(self._flying)
        taken = await self._take(free) if free else []
        self._full = len(taken) == free
        for row in taken:
            task = asyncio.create_task(self._deliver_one(row), name=f"routeguard-outbox-{row.kind}")
            self._flying.add(task)
            task.add_done_callback(self._delivered)

    def _pause(self) -> float:
        # Some have been delivered meanwhile, and more may be due.
        return 0.0 if self._full and len(self._flying) < _AT_ONCE else _POLL

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._flying.discard(task)
        # More may be due than there were places for.
        if len(self._flying) == _AT_ONCE - 1:
            self._taking.wake()

    async def _take(self, limit: int) -> list[_Taken]:
        """Claim due rows in one statement, so that no two workers take the same; the lease is their new due time."""
        now = self._clock.time()
        # Those without a label are from before kinds were stored with one.
        kinds = [*self._deliver, *(kind + self._suffix for kind in self._deliver)]
        due = (
            sa.select(outbox.c.id)
            .where(outbox.c.dead_at.is_(None), outbox.c.due_at <= now, outbox.c.kind.in_(kinds))
            .order_by(outbox.c.due_at)
            .limit(limit)
        )
        # Looking is cheap; an idle outbox must not take SQLite's one write lock each second.
        async with self._database.read() as tx:
            if await tx.one(due.limit(1)) is None:
                return []
        claim = (
            sa.update(outbox)
            .where(outbox.c.id.in_(due.with_for_update(skip_locked=True)), outbox.c.due_at <= now)
            .values(due_at=now + _LEASE, attempts=outbox.c.attempts + 1)
            .returning(outbox.c.id, outbox.c.kind, outbox.c.payload, outbox.c.attempts)
        )
        async with self._database.transaction() as tx:
            rows = await tx.all(claim)
        return [_Taken(row.id, row.kind, row.payload, row.attempts) for row in rows]

    async def _deliver_one(self, row: _Taken) -> None:
        try:
            async with asyncio.timeout(_DEADLINE):
                await self._deliver[row.kind.removesuffix(self._suffix)](self._open(row))
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # By `close`. Otherwise not this task was cancelled, but what the delivery waited for.
            # Whatever a delivery raises, the row must get its next try.
            # Only the class: the message may quote an address or a link.
            logger.warning("delivery of %s %s failed: %s", row.kind, row.id, type(error).__name__)
            change: sa.Executable = sa.update(outbox).where(*_still(row)).values(self._later(row))
        else:
            change = sa.delete(outbox).where(*_still(row))
        # Unavailable: then its lease ends by itself, and it is delivered once more.
        with contextlib.suppress(Unavailable):
            async with self._database.transaction() as tx:
                await tx.execute(change)

    def _later(self, row: _Taken) -> dict[str, float]:
        now = self._clock.time()
        if row.attempts >= _ATTEMPTS:
            logger.error("%s %s is given up after %d attempts", row.kind, row.id, row.attempts)
            return {"dead_at": now}
        pause = min(2.0 ** (row.attempts - 1), _LONGEST_PAUSE)
        # Spread, so that what failed together does not come back together.
        return {"due_at": now + pause * (0.75 + secrets.randbelow(50) / 100)}

    def _open(self, row: _Taken) -> bytes:
        payload = self._sealer.open(row.payload, _bound_to(row.id, row.kind))
        if payload is None:
            raise ConfigError("an outbox row was sealed with a secret that is not configured any more")
        return payload


def _bound_to(row_id: str, kind: str) -> bytes:
    """Return what a payload is authenticated with, so that none can be moved to another row."""
    return f"{row_id}:{kind}".encode()


def _still(row: _Taken) -> tuple[sa.ColumnElement[bool], ...]:
    """Whether the claim still holds: one that outlived its lease must not undo the work of the next."""
    return outbox.c.id == row.id, outbox.c.attempts == row.attempts
