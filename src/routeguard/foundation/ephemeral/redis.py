"""Ephemeral storage on Valkey or Redis: `redis://`, `valkey://`, `rediss://`, shared by all replicas.

Whatever a request needs goes in one command (see `script`), on one connection that batches (see `connection`). On a
cluster keys are grouped by slot and there is one command a slot, sent together.
"""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import hiredis

from routeguard.core.errors import Unavailable
from routeguard.foundation.ephemeral import replies
from routeguard.foundation.ephemeral.cluster import SLOTS, Cluster
from routeguard.foundation.ephemeral.connection import Address, Command, Connection, Part
from routeguard.foundation.ephemeral.protocol import BUCKETS, Attempt, Hit, Quota
from routeguard.foundation.ephemeral.script import SCRIPT, SCRIPT_SHA, SET_IF

if TYPE_CHECKING:
    from typing_extensions import Self

Q = TypeVar("Q")
A = TypeVar("A")

_GREETING: Final[tuple[Command, ...]] = (("SCRIPT", "LOAD", SCRIPT),)
_WRITE: Final[Command] = ("DEL", "{routeguard}:greeting")
"""A write that changes nothing: a replica refuses it, so that we never begin with one."""


class RedisEphemeral:
    """Keys on a server, or with `cluster` on several. `deadline` is in seconds, for one command."""

    def __init__(self, *addresses: Address, deadline: float = 0.5, cluster: bool = False) -> None:
        # Of a cluster, one server does not have the slot of every key.
        self._connection = Connection(addresses[0], deadline=deadline, greeting=(*_GREETING, _WRITE))
        self._cluster = Cluster(addresses, deadline=deadline, greeting=_GREETING) if cluster else None

    @classmethod
    def from_url(cls, url: str, *, deadline: float = 0.5) -> Self:
        """Make a store of a URL such as ``"valkey://user:password@host:6379/0"``.

        ``?cluster=1`` says that it is one server of a cluster, from which the others are learned; more to begin with
        are named as ``&node=host:port``. Raises ConfigError.
        """
        first = Address.parse(url)
        cluster = "cluster=1" in urlsplit(url).query.split("&")
        return cls(*(Address.parse_all(url) if cluster else [first]), deadline=deadline, cluster=cluster)

    @property
    def is_up(self) -> bool:
        """Whether the server, or every server of the cluster, answered last."""
        return (self._cluster or self._connection).is_up

    @property
    def refusal(self) -> str | None:
        """Why the server refuses us, when that is for a setting and no outage: a sentence for the operator."""
        return (self._cluster or self._connection).refusal

    async def start(self) -> None:
        """Connect, or go on trying in the background."""
        await (self._cluster or self._connection).start()

    async def close(self) -> None:
        """Close the connection."""
        await (self._cluster or self._connection).close()

    async def get(self, key: str) -> bytes | None:
        """Return the value of a live key, or None. Raises Unavailable."""
        found: bytes | None = await self._ask(key, "GET", key)
        return found

    async def get_all(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return the values of several keys, in order. Raises Unavailable."""
        if not keys:
            return ()
        return await (self._get_all(keys) if self._cluster is None else _by_slot(keys, keys, self._get_all))

    async def _get_all(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        found: list[bytes | None] = await self._ask(keys[0], "MGET", *keys)
        return found

    async def put(self, key: str, value: bytes, *, ttl: float, expected: bytes | None = None) -> bool:
        """Set a key; with `expected`, only while it holds that. Raises Unavailable."""
        if expected is None:
            await self._ask(key, "SET", key, value, "PX", _milliseconds(ttl))
            return True
        return bool(await self._ask(key, "EVAL", SET_IF, 1, key, expected, "s", value, _milliseconds(ttl)))

    async def delete(self, key: str, *, expected: bytes | None = None) -> bool:
        """Remove a key; with `expected`, only while it holds that. Raises Unavailable."""
        if expected is None:
            return bool(await self._ask(key, "DEL", key))
        return bool(await self._ask(key, "EVAL", SET_IF, 1, key, expected, "d"))

    async def claim(self, key: str, value: bytes, *, ttl: float) -> bytes | None:
        """Set a key unless it is there; None to the one who set it. Raises Unavailable."""
        # SET ... NX GET (Redis 7.0, Valkey): sets if absent and tells what was there, in one atomic step.
        found: bytes | None = await self._ask(key, "SET", key, value, "NX", "GET", "PX", _milliseconds(ttl))
        return found

    async def hit(self, attempts: Sequence[Attempt]) -> Sequence[Hit]:
        """Spend units of several quotas at once, or of none. Raises Unavailable."""
        if not attempts:
            return ()
        if self._cluster is None:
            return await self._hit(attempts)
        return await _by_slot(attempts, [attempt.key for attempt in attempts], self._hit)

    async def _hit(self, attempts: Sequence[Attempt]) -> Sequence[Hit]:
        rest = _arguments(attempts)
        key = attempts[0].key
        try:
            answer = await self._send(key, "EVALSHA", SCRIPT_SHA, *rest)
        except hiredis.ReplyError as error:
            if str(error).startswith("NOSCRIPT"):
                answer = await self._ask(key, "EVAL", SCRIPT, *rest)
            else:
                answer = await self._once_more(error, key, "EVALSHA", SCRIPT_SHA, *rest)
        return [Hit(hit[0] == 1, hit[1], hit[2] / 1000) for hit in answer]

    def _send(self, key: str, *parts: Part) -> Awaitable[Any]:
        """Send a command to the server that has `key`."""
        if self._cluster is not None:
            return self._cluster.command(slot_of(key), *parts)
        return self._connection.command(*parts)

    async def _ask(self, key: str, *parts: Part) -> Any:
        try:
            return await self._send(key, *parts)
        except hiredis.ReplyError as error:
            return await self._once_more(error, key, *parts)

    async def _once_more(self, error: hiredis.ReplyError, key: str, *parts: Part) -> Any:
        """Send a command again that a server refused which is not the one to ask any more (see `replies`).

        It was not carried out there, so nothing is done twice. Raises Unavailable for any other error reply.
        """
        if self._cluster is not None or not replies.gives_up(error):
            raise _fault(error) from None
        await self._connection.renewed()
        try:
            return await self._send(key, *parts)
        except hiredis.ReplyError as again:
            raise _fault(again) from None


def slot_of(key: str) -> int:
    """Return a key's slot in a cluster: CRC16 (XMODEM) of its hash tag (Redis Cluster specification)."""
    start = key.find("{")
    end = key.find("}", start + 1) if start >= 0 else -1
    hashed = key[start + 1 : end] if end > start + 1 else key
    return crc_hqx(hashed.encode(), 0) % SLOTS


async def _by_slot(
    questions: Sequence[Q], keys: Sequence[str], ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]
) -> Sequence[A]:
    """Ask each server of a cluster once, together, and return the answers in the order of the questions."""
    slots: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        slots.setdefault(slot_of(key), []).append(place)
    if len(slots) == 1:
        return await ask(questions)
    parts = await asyncio.gather(*[ask([questions[place] for place in places]) for places in slots.values()])
    found = {
        place: answer
        for places, part in zip(slots.values(), parts, strict=True)
        for place, answer in zip(places, part, strict=True)
    }
    return [found[place] for place in range(len(keys))]


def _arguments(attempts: Sequence[Attempt]) -> list[Part]:
    parts: list[Part] = [len(attempts), *(attempt.key for attempt in attempts)]
    for _, quota, cost in attempts:
        kind, limit, step = _numbers(quota)
        parts += (kind, limit, step, cost)
    return parts


def _numbers(quota: Quota) -> tuple[bytes, int, bytes]:
    """Return kind, limit and microseconds a unit or bucket, as the script reads them."""
    if quota.algorithm == "gcra":
        return b"g", quota.burst, b"%.6f" % (quota.interval * 1_000_000)
    return b"s", quota.limit, b"%.6f" % (quota.period * 1_000_000 / BUCKETS)


def _milliseconds(ttl: float) -> int:
    return max(int(ttl * 1000), 1)


def _fault(error: hiredis.ReplyError) -> Unavailable:
    """An error reply (out of memory, loading, read-only replica) is an outage, not an answer."""
    return Unavailable(f"valkey refused a command: {error}")
