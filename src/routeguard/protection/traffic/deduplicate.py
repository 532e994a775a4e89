"""Equal requests at the same time run the handler once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import anyio
from typing_extensions import override

from routeguard.core.errors import ConfigError, GuardNotApplied, Unavailable
from routeguard.core.policy import BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.rate import parse_duration, parse_size
from routeguard.core.secret import new_token
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.protection.traffic.answers import Answer, Flight, body_of, caller_key, observe, request_digest, unkept
from routeguard.protection.traffic.leases import Leases
from routeguard.protection.traffic.problems import REQUEST_IN_PROGRESS

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
_KEPT: Final = 5.0
"""Seconds an answer stays in the store, for followers in other processes to fetch."""
_WAIT_AGAIN: Final = REQUEST_IN_PROGRESS(headers=(("retry-after", "1"),))


def deduplicate(
    *,
    wait: str | timedelta = "10s",
    lease: str | timedelta = "30s",
    small: str | int = "64 KB",
    share_cookies: bool = False,
) -> Policy:
    """Return the policy under which equal requests at the same time run the handler once.

    Equal means: the same principal (for guests, the same address), method, target, headers, credentials included,
    and body; so no caller ever gets what another asked for (attack DDP-01). The first runs the handler; the others get
    its answer when the method is safe or the answer is at most `small`, else 409 `request-in-progress`; the same
    after waiting `wait`. When the first fails (a server error, a crash, or nothing after `lease`), another takes its
    place. Across replicas through the ephemeral store.

    An answer that sets cookies is not shared, unless `share_cookies` says that the request itself proves who sent it
    (a password in the body), and then within one process only. Streams and WebSockets are a
    ConfigError, and so is `deferred` beside it.
    """
    numbers = [parse_duration(wait).total_seconds(), parse_duration(lease).total_seconds()]
    if min(numbers) <= 0:
        raise ConfigError("deduplicate: wait and lease must be longer than nothing")
    return Policy((Deduplicate(numbers[0], numbers[1], parse_size(small), share_cookies),))


@dataclass(frozen=True, slots=True)
class Deduplicate(Check):
    """One run for equal requests. `wait` and `lease` are in seconds, `small` in bytes."""

    stage = Stage.EXECUTION  # Last: a caller who is refused joins no other.

    wait: float = 10.0
    lease: float = 30.0
    small: int = 65536
    share_cookies: bool = False

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the store. Raises ConfigError without one."""
        store: Ephemeral = services.get(Ephemeral)
        return _Joiner(self, store, caller_key(services)).join

    @override
    def conflicts(self, policy: Policy, handler: Any, kind: str) -> str | None:
        """Refuse streams, which have no end to keep (attack DDP-07), and handlers that decide (attack DDP-01)."""
        return unkept(policy, handler, kind, check="deduplicate()")

    @override
    def describe(self) -> str:
        return "de-duplicated"


class _Joiner:
    """Leaders and followers of one handler."""

    __slots__ = ("_check", "_flights", "_leases", "_shared", "_subject")

    def __init__(self, check: Deduplicate, store: Ephemeral, subject: Callable[[Exchange], str]) -> None:
        self._check = check
        self._subject = subject
        self._flights: dict[str, Flight] = {}
        self._shared = None if isinstance(store, MemoryEphemeral) else store
        self._leases = Leases(store)

    async def join(self, exchange: Exchange) -> Outcome:
        """Lead, or follow the leader."""
        if exchange.request.kind == "websocket":
            raise GuardNotApplied("deduplicate() cannot guard a WebSocket")
        body = await body_of(exchange)
        key = f"{self._subject(exchange)}:dup:{request_digest(exchange, body, headers=True).hex()}"
        if (Deduplicate, key) in exchange.memo:
            return None  # This request leads already, by the policy of a mount around the route.
        end = monotonic() + self._check.wait
        while (left := end - monotonic()) > 0:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = Flight()
                led, answer = await self._lead(exchange, key, flight, end)
                if led:
                    return None
            else:
                if not await flight.wait(left):
                    break
                answer = flight.answer
            if answer is not None:
                return self._share(exchange, answer)
        return _WAIT_AGAIN

    async def _lead(self, exchange: Exchange, key: str, flight: Flight, end: float) -> tuple[bool, Answer | None]:
        """Become the leader of this process. Returns whether it is the leader of all, else the other's answer."""
        token = new_token(12).encode()
        if self._shared is not None:
            answer: Answer | None = None
            leads = False
            try:
                taken = await self._leases.claim(key, token, ttl=self._check.lease)
                leads = taken is None
                if taken is not None:
                    answer = await self._follow(self._shared, key, taken, end)
            finally:
                # Followers here must not wait for a leader that was cancelled, or whose store went away.
                if not leads:
                    self._finish(key, flight, answer)
            if not leads:
                return False, answer
        exchange.memo[Deduplicate, key] = True
        observe(exchange, self._ending(key, token, flight))
        return True, None

    async def _follow(self, store: Ephemeral, key: str, token: bytes, end: float) -> Answer | None:
        """Wait for the answer of a leader in another process; None when it gave none in time, or gave up."""
        pause = _FIRST_PAUSE
        place = _place(key, token)
        while monotonic() < end:
            # Both at once: the answer is written before the lease is given up.
            answer, lease = await store.get_all([place, key])
            if answer is not None:
                return Answer.decode(answer)
            if lease != token:
                return None
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return None

    def _ending(self, key: str, token: bytes, flight: Flight) -> Any:
        async def ended(answer: Answer | None) -> None:
            self._finish(key, flight, answer)
            if self._shared is None:
                return
            # When the store is away there is no answer for followers elsewhere; the next of them leads.
            with contextlib.suppress(Unavailable):
                if answer is not None:
                    kept = answer if not answer.cookies and len(answer.body or b"") <= self._check.small else None
                    kept = kept or Answer(answer.status)
                    await self._shared.put(_place(key, token), kept.encode(), ttl=_KEPT)
            await self._leases.release(key, token, ttl=self._check.lease)

        return ended

    def _finish(self, key: str, flight: Flight, answer: Answer | None) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.finish(answer)

    def _share(self, exchange: Exchange, answer: Answer) -> Outcome:
        if answer.body is None or (answer.cookies and not self._check.share_cookies):
            return _WAIT_AGAIN
        if exchange.request.is_safe or len(answer.body) <= self._check.small:
            return answer.reply(*answer.cookies)
        return _WAIT_AGAIN


def _place(key: str, token: bytes) -> str:
    return f"{key}:{token.decode('latin-1')}"
