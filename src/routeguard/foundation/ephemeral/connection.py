"""One connection to Valkey or Redis that never blocks the loop and never waits longer than its deadline.

Commands given in one turn of the event loop leave in one write, and their answers are matched in order (pipelining).
A command that outlives the deadline fails every command of its connection, because a server that stopped answering
one has stopped answering all; the connection is then dropped and made anew in the background, while callers are
refused at once (the circuit is open) instead of waiting one by one.

A server that says it is not, or not any more, the one to ask (`replies.gives_up`) loses the connection too: the name
is resolved anew, and every address behind it is tried until one takes the greeting, so that a fail-over that moves the
name is followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit
from weakref import WeakSet

import hiredis

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.periodic import Periodic
from routeguard.core.ports import PORT_RANGE, is_port, port_of
from routeguard.foundation.ephemeral import replies

logger = logging.getLogger("routeguard.ephemeral")

_DEFAULT_PORT: Final = 6379
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_ERRORS: Final = (OSError, hiredis.HiredisError, TimeoutError, Unavailable)

Part = bytes | str | int
Command = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is and how to introduce oneself."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `redis://`, `valkey://` or, with TLS, `rediss://`, `valkeys://`. Raises ConfigError."""
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ConfigError("the host of the ephemeral URL cannot be read") from None
        if parts.scheme not in {"redis", "valkey", "rediss", "valkeys"}:
            raise ConfigError(f"ephemeral URL scheme {parts.scheme!r} is none of redis, valkey, rediss, valkeys")
        database = parts.path.strip("/") or parse_qs(parts.query).get("db", ["0"])[0]
        try:
            port = port_of(url) or _DEFAULT_PORT
        except ValueError:
            raise ConfigError(PORT_RANGE) from None
        if not (database.isascii() and database.isdigit()):
            raise ConfigError("the path of the ephemeral URL must be a database number")
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port,
            tls=parts.scheme.endswith("s") and parts.scheme != "redis",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            database=int(database),
        )

    @classmethod
    def parse_all(cls, url: str) -> list[Address]:
        """Read a URL and the further servers it names as ``node=host:port``. Raises ConfigError."""
        first = cls.parse(url)
        found = [first]
        for node in parse_qs(urlsplit(url).query).get("node", []):
            host, _, port = node.rpartition(":")
            if not host:
                raise ConfigError(f"node {node!r} of the ephemeral URL is not of the form host:port")
            if not is_port(port):
                raise ConfigError(f"node {node!r}: {PORT_RANGE}")
            found.append(replace(first, host=host, port=int(port)))
        return found

    def greeting(self) -> list[Command]:
        """Return the commands that open a connection."""
        commands: list[Command] = []
        if self.password is not None:
            commands.append(("AUTH", self.username, self.password) if self.username else ("AUTH", self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        commands.append(("PING",))
        return commands


class _Wire(asyncio.Protocol):
    """The bytes of one connection: commands out in batches, answers in by order."""

    def __init__(self, deadline: float, lost: Callable[[_Wire, str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._lost = lost
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False
        self.retired = False
        """Whether only what was sent already is still waited for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an assert: the transports of uvloop are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def command(self, packed: bytes) -> asyncio.Future[Any]:
        """Queue a command; it leaves with the others of this turn. Returns its answer to come."""
        future = self._loop.create_future()
        if self.closed:
            future.set_exception(Unavailable("valkey: connection lost"))
            return future
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        due = self._loop.time() + self._deadline
        self._waiting.append((future, due))
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._check)
        return future

    def _flush(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _check(self) -> None:
        """Drop the connection when its oldest command is late; else look again when that one is due."""
        self._timer = None
        if not self._waiting:
            return
        due = self._waiting[0][1]
        if due <= self._loop.time():
            self.fail("valkey: no answer in time")
        else:
            self._timer = self._loop.call_at(due, self._check)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                future, _ = self._waiting.popleft()
                if isinstance(answer, hiredis.ReplyError):
                    if replies.gives_up(answer):
                        self.retire(str(answer))
                    if not future.done():
                        future.set_exception(answer)
                elif not future.done():  # Else its caller went away.
                    future.set_result(answer)
        except (hiredis.ProtocolError, IndexError):
            self.fail("valkey: answers that make no sense")
        if self.retired and not self._waiting:
            self.fail("valkey: connection given up")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's shape
        self.fail("valkey: connection lost")

    def retire(self, why: str) -> None:
        """Take no more commands, and close once those already sent are answered: each with what became of it."""
        if not self.retired and not self.closed:
            self.retired = True
            self._lost(self, why)

    def fail(self, why: str) -> None:
        """Give up: every waiting caller gets Unavailable."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            # RuntimeError: the event loop it belonged to has been closed. It ends with the last reference.
            with contextlib.suppress(RuntimeError):
                self._transport.abort()
            self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            if not (future.done() or self._loop.is_closed()):
                future.set_exception(Unavailable(why))
        if not self.retired:
            self._lost(self, why)


class Connection:
    """The connection callers use: always there, sometimes open."""

    def __init__(self, address: Address, *, deadline: float = 0.5, greeting: Sequence[Command] = ()) -> None:
        self.address: Final = address
        self._greeting = greeting
        self._deadline = deadline
        self._wire: _Wire | None = None
        self._keeping = Periodic("routeguard-valkey", self._reopen, pause=self._pause)
        self._tried = asyncio.Event()
        self._closing = False
        self._opened = -math.inf
        self._next_pause = _FIRST_PAUSE
        self._retired: WeakSet[_Wire] = WeakSet()
        self._said: str | None = None
        """What the log was told last, while the server is away: each reason is said once."""
        self.refusal: str | None = None
        """Why the server refuses us, when that is for a setting: a sentence for the operator."""

    @property
    def is_up(self) -> bool:
        """Whether commands are sent at present."""
        return self._wire is not None

    async def start(self) -> None:
        """Connect; when that fails now, go on trying in the background."""
        if self._keeping.running:
            return
        self._closing, self._tried = False, asyncio.Event()
        self._opened, self._next_pause = -math.inf, _FIRST_PAUSE
        try:
            await self._open()
        except _ERRORS as error:
            self._failed(error)
            self._keeping.wake()
        self._keeping.start()

    async def close(self) -> None:
        """Close for good."""
        self._closing = True
        await self._keeping.close()
        wire, self._wire = self._wire, None
        for one in (wire, *self._retired):
            if one is not None:
                one.fail("valkey: closed")

    def command(self, *parts: Part) -> asyncio.Future[Any]:
        """Send a command and return its answer to come. Raises Unavailable at once while the circuit is open.

        The future raises Unavailable when the answer does not come in time, hiredis.ReplyError for an error reply.
        """
        wire = self._wire
        if wire is None:
            raise Unavailable("valkey is away", retry_after=1)
        return wire.command(hiredis.pack_command(parts))  # type: ignore[arg-type]

    async def renewed(self) -> None:
        """Wait for the attempt to replace a connection that was given up. Raises Unavailable when it fails."""
        if self._wire is None:
            try:
                async with asyncio.timeout(self._deadline * 2):
                    await self._tried.wait()
            except TimeoutError:
                raise Unavailable("valkey is away", retry_after=1) from None
        if self._wire is None:
            raise Unavailable("valkey is away", retry_after=1)

    async def _open(self) -> None:
        """Connect to the first address of the name that takes the greeting. Raises the reason of the last that did not.

        Resolved each time: after a fail-over the same name is another server. The address of a server that was demoted
        may still be among them, even the first.
        """
        loop = asyncio.get_running_loop()
        address = self.address
        async with asyncio.timeout(self._deadline * 2):
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        failure: BaseException = OSError("the name has no address")
        for host in dict.fromkeys(str(entry[4][0]) for entry in found):
            try:
                wire = await self._greet(host)
            except _ERRORS as error:
                failure = error
            else:
                self._wire = wire
                return
        raise failure

    async def _greet(self, host: str) -> _Wire:
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if self.address.tls:
            tls = {"ssl": ssl.create_default_context(), "server_hostname": self.address.host}
        async with asyncio.timeout(self._deadline * 2):
            _, wire = await loop.create_connection(
                lambda: _Wire(self._deadline, self._on_lost), host, self.address.port, **tls
            )
        # A stopped server still accepts connections, in its kernel: only an answer proves that it is back.
        greeting = [*self.address.greeting(), *self._greeting]
        ready = False
        try:
            answers = await asyncio.gather(
                *[wire.command(hiredis.pack_command(parts)) for parts in greeting],  # type: ignore[arg-type]
                return_exceptions=True,
            )
            for answer in answers:
                if isinstance(answer, BaseException) and not replies.is_full(answer):
                    raise answer
            ready = True
        finally:
            if not ready:  # Also when the store is closed meanwhile.
                wire.fail("valkey: not ready")
        return wire

    def _on_lost(self, wire: _Wire, why: str) -> None:
        if wire.retired:
            self._retired.add(wire)
        if self._wire is wire:
            self._wire = None
            self._tried.clear()
            self._keeping.wake()
            if not self._closing:
                self._away(why)

    def _failed(self, error: BaseException) -> None:
        """Take note of an attempt that led nowhere."""
        finding = replies.refusal_of(error)
        if finding is None:
            self.refusal = None
            self._away(str(error) or type(error).__name__)
            return
        self.refusal = f"valkey at {self.address.host}:{self.address.port} {finding}"
        if self.refusal != self._said:
            self._said = self.refusal
            logger.error("%s", self.refusal)

    def _away(self, why: str) -> None:
        if why != self._said:
            self._said = why
            logger.warning("valkey at %s:%d is away: %s", self.address.host, self.address.port, why)

    async def _reopen(self) -> None:
        """Connect again after the connection dropped."""
        if self._wire is not None:
            return
        loop = asyncio.get_running_loop()
        # At once, unless the last one did not last: a server that takes greetings and nothing else.
        if loop.time() - self._opened < _FIRST_PAUSE:
            await asyncio.sleep(_FIRST_PAUSE)
        try:
            await self._open()
        except _ERRORS as error:
            self._failed(error)
        else:
            self._opened, self._next_pause, self._said, self.refusal = loop.time(), _FIRST_PAUSE, None, None
            logger.info("valkey at %s:%d is back", self.address.host, self.address.port)
        self._tried.set()

    def _pause(self) -> float | None:
        """Wait for the connection to drop; while there is none, for a while that grows up to a second."""
        if self._wire is not None:
            return None
        pause, self._next_pause = self._next_pause, min(self._next_pause * 2, _LONGEST_PAUSE)
        return pause
