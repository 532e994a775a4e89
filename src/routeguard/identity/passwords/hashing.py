"""Slow hashes in a small pool: off the event loop, bounded in number, the same work for everybody."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError

from routeguard.core.problem import unavailable
from routeguard.core.secret import new_token
from routeguard.identity.passwords import schemes

if TYPE_CHECKING:
    from collections.abc import Callable

    from routeguard.identity.passwords.models import PasswordSettings

T = TypeVar("T")

logger = logging.getLogger("routeguard.passwords")

_RETRY_AFTER: Final = 2
_OWN: Final = "$argon2id$"
_MARGIN: Final = 1.25
_LONGEST_WAIT: Final = 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password was right, and the hash to store in place of one that is outdated."""

    correct: bool
    replacement: str | None = None


class HashingPool:
    """Hashes and verifies normalised passwords with argon2id (RFC 9106), as many at once as there are cores.

    Beyond `PasswordSettings.queue` waiting it refuses with 503 and Retry-After instead of growing a queue in which
    every request times out (attack PW-12).
    """

    def __init__(self, settings: PasswordSettings) -> None:
        self._workers = settings.workers or _cores()
        self._executor: ThreadPoolExecutor | None = self._new_executor()
        self._room = self._workers + settings.queue
        # Until the work itself ends: a caller who hangs up does not make room for another.
        self._working: set[Future[Any]] = set()
        self._argon2 = PasswordHasher(
            settings.time_cost, settings.memory, settings.parallelism, hash_len=32, salt_len=16, type=Type.ID
        )
        self._slowest = 0.0
        """Seconds that every wrong password takes at least; 0 where all hashes are our own."""
        # Verified in place of a missing hash, so that an unknown user costs what a known one does (attack ENUM-01).
        self._dummy = self._argon2.hash(new_token())

    async def start(self) -> None:
        """Take up work again after `close`; a new pool works from the beginning."""
        if self._executor is None:
            self._executor = self._new_executor()

    async def close(self) -> None:
        """Stop the workers: what waits is dropped, what they are at has its moment to end."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
            left = [asyncio.wrap_future(future) for future in self._working.copy()]
            await asyncio.gather(*left, return_exceptions=True)
            executor.shutdown()

    def _new_executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._workers, thread_name_prefix="routeguard-hash")

    async def hash(self, password: str) -> str:
        """Return the encoded argon2id hash of a normalised password. Raises ProblemError 503 when too many wait."""
        return await self._run(lambda: self._argon2.hash(password))

    async def verify(self, encoded: str | None, password: str, *, typed: str | None = None) -> Verdict:
        """Return whether a normalised password is the one behind `encoded`; the same work when that is None.

        `typed` is the password before normalisation: other systems hashed that. A hash that cannot be read is a wrong
        password and an error in the log, never a fault and never a way in (attack PW-10). A right password with a
        hash of another scheme or cost yields its replacement. Raises ProblemError 503 when too many wait.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        verdict = await self._run(lambda: self._verify(encoded, password, typed))
        if not verdict.correct and self._slowest:
            # A wait and not work: what a stranger can make us spend must not grow with the slowest import.
            least = self._slowest * (1 if typed is None or typed == password else 2)
            await asyncio.sleep(max(began + least - loop.time(), 0.0))
        return verdict

    async def learn(self, encoded: str) -> None:
        """Find out how long a hash of another system takes, so that no refusal is faster (attack ENUM-01)."""
        await self._run(lambda: self._verify(encoded, new_token(), None))

    def _foreign(self, encoded: str, password: str) -> bool:
        began = time.perf_counter()
        correct = schemes.verify(encoded, password.encode())
        took = time.perf_counter() - began
        # Only up, and past what a busy machine adds: the slowest seen until the next start.
        self._slowest = max(self._slowest, min(took * _MARGIN, _LONGEST_WAIT))
        return correct

    def _verify(self, encoded: str | None, password: str, typed: str | None) -> Verdict:
        if not encoded:
            schemes.verify(self._dummy, password.encode())
            if encoded is not None:
                logger.error("a stored password hash is empty; the sign-in was refused")
            return Verdict(correct=False)
        try:
            if encoded.startswith(_OWN):
                correct = schemes.verify(encoded, password.encode())
            else:
                correct = self._foreign(encoded, password)
                if not correct and typed is not None and typed != password:
                    correct = self._foreign(encoded, typed)
        except schemes.HashError as error:
            # Neither the hash nor the password is named. Made up for in time as a wrong password.
            logger.error("a stored password hash cannot be checked: %s", error)  # noqa: TRY400 - no values
            schemes.verify(self._dummy, password.encode())
            return Verdict(correct=False)
        if not correct:
            return Verdict(correct=False)
        return Verdict(correct=True, replacement=self._argon2.hash(password) if self._is_outdated(encoded) else None)

    def _is_outdated(self, encoded: str) -> bool:
        if not encoded.startswith(_OWN):
            return True
        try:
            return self._argon2.check_needs_rehash(encoded)
        except InvalidHashError:
            return True

    async def _run(self, work: Callable[[], T]) -> T:
        if len(self._working) >= self._room:
            raise unavailable("the password hashing queue is full", _RETRY_AFTER).error()
        if self._executor is None:
            raise unavailable("the password hashing pool is closed", _RETRY_AFTER).error()
        future = self._executor.submit(work)
        self._working.add(future)
        future.add_done_callback(self._working.discard)
        return await asyncio.wrap_future(future)


def _cores() -> int:
    """Return the cores this process may use; a container often has fewer than the machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
