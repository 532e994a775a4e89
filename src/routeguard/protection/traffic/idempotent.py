"""Retries with an Idempotency-Key get the first answer again (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import anyio
from typing_extensions import override

from routeguard.core.errors import ConfigError, GuardNotApplied, Unavailable
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.problem import MALFORMED_REQUEST
from routeguard.core.rate import parse_duration
from routeguard.core.secret import digest, equal, new_token
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.protection.traffic.answers import Answer, Flight, body_of, caller_key, observe, request_digest, unkept
from routeguard.protection.traffic.leases import Leases
from routeguard.protection.traffic.problems import IDEMPOTENCY_KEY_MISSING, IDEMPOTENCY_KEY_REUSED, REQUEST_IN_PROGRESS

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.request import RequestView
    from routeguard.core.services import Services

_HEADER: Final = b"idempotency-key"
_KEY: Final = re.compile(rb'(?P<quote>"?)[!#-\[\]-~]{1,255}(?P=quote)')
"""Visible ASCII without quotes and backslashes; the draft's quoted string, and the bare form many clients send."""
_RUNNING: Final = b"r"
_DONE: Final = b"d"
_DIGEST: Final = 32
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
_REPLAYED: Final = (b"idempotency-replayed", b"true")
_MALFORMED: Final = MALFORMED_REQUEST("Idempotency-Key must be 1 to 255 visible ASCII characters.")
_WAIT_AGAIN: Final = REQUEST_IN_PROGRESS(headers=(("retry-after", "1"),))
_NOT_KEPT: Final = REQUEST_IN_PROGRESS("The request was carried out; its answer was too long to be kept.")
_OTHER_CODING: Final = REQUEST_IN_PROGRESS(
    "The request was carried out; its answer was kept in a content coding that Accept-Encoding does not list."
)


def idempotent(
    *, keep: str | timedelta = "24h", wait: str | timedelta = "10s", lease: str | timedelta = "60s"
) -> Policy:
    """Return the policy under which an unsafe request must carry an `Idempotency-Key`, and runs once for each key.

    Retries of the same caller get status, headers (Set-Cookie excluded) and body of the first answer for `keep`,
    with `Idempotency-Replayed: true`. While the first is being worked on they wait for it up to `wait`, then 409
    `request-in-progress`. The same key with another request is 422 `idempotency-key-reused`; no key is 400
    `idempotency-key-missing`. A server error is not kept, so that a retry runs anew; so does one after a crash, at
    the latest when `lease` is over. Other callers never share a key: those no check has named are told apart by
    address, Host and every credential they send. Safe methods pass.
    Streams and WebSockets are a ConfigError, and so is `deferred` beside it. Of a mount and a route that both say it,
    the mount claims the key and keeps the answer.
    """
    numbers = [parse_duration(one).total_seconds() for one in (keep, wait, lease)]
    if min(numbers) <= 0:
        raise ConfigError("idempotent: keep, wait and lease must be longer than nothing")
    return Policy((Idempotent(*numbers),))


@dataclass(frozen=True, slots=True)
class Idempotent(Check):
    """One run for each key of a caller. All three are in seconds."""

    stage = Stage.EXECUTION  # Last: what is refused is not remembered.

    keep: float = 86400.0
    wait: float = 10.0
    lease: float = 60.0

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the store. Raises ConfigError without one."""
        store: Ephemeral = services.get(Ephemeral)
        return _Keeper(self, store, caller_key(services)).admit

    @override
    def conflicts(self, policy: Policy, handler: Any, kind: str) -> str | None:
        """Refuse streams, which have no end to keep (attack DDP-07), and handlers that decide (attack DDP-01)."""
        return unkept(policy, handler, kind, check="idempotent()")

    @override
    def describe(self) -> str:
        return "once per Idempotency-Key"

    @override
    def attacks(self) -> Iterable[Attack]:
        """Yield keys that are none."""
        for name, key in (("empty", ""), ("10 KB", "k" * 10240), ("NUL", "a\0b"), ("CRLF", "a\r\nb"), ("space", "a b")):
            yield Attack(name=f"{name} key", status=400, method="POST", headers=(("idempotency-key", key),))


def _replay(request: RequestView, answer: Answer) -> Outcome:
    """Return the kept answer for a retry, or a refusal when it cannot be given."""
    if answer.body is None:
        return _NOT_KEPT
    return answer.reply(_REPLAYED) if answer.is_acceptable(request) else _OTHER_CODING


class _Keeper:
    """The keys of one handler's callers."""

    __slots__ = ("_check", "_flights", "_leases", "_store", "_subject")

    def __init__(self, check: Idempotent, store: Ephemeral, subject: Callable[[Exchange], str]) -> None:
        self._check = check
        self._store = store
        self._leases = Leases(store)
        self._subject = subject
        self._flights: dict[str, Flight] = {}

    async def admit(self, exchange: Exchange) -> Outcome:
        """Let the first through, and answer its retries. Raises Unavailable: without the store nothing runs once."""
        request = exchange.request
        if request.kind == "websocket":
            raise GuardNotApplied("idempotent() cannot guard a WebSocket")
        if request.is_safe:
            return None
        sent = request.headers.get(_HEADER)
        if sent is None:
            return IDEMPOTENCY_KEY_MISSING()
        # Long, empty or with control characters: it would be a key of the attacker's making (attack DDP-05).
        if not _KEY.fullmatch(sent) or _HEADER in request.repeated:
            return _MALFORMED
        # The caller is part of the key, the request is not: the same key for another request must be noticed.
        name = digest(sent.strip(b'"')).hex()
        key = f"{self._subject(exchange)}:idem:{name}"
        if (Idempotent, key) in exchange.memo:
            return None  # A mount around the route has claimed it for this request, and keeps the answer.
        wanted = request_digest(exchange, await body_of(exchange), headers=False)
        end = monotonic() + self._check.wait
        pause = _FIRST_PAUSE
        while True:
            mark = _RUNNING + wanted + new_token(12).encode()
            found = await self._leases.claim(key, mark, ttl=self._check.lease)
            if found is None:
                self._run(exchange, key, mark, wanted)
                return None
            # The same key for something else: never the answer to another question (attack DDP-02).
            if not equal(found[1 : 1 + _DIGEST], wanted):
                return IDEMPOTENCY_KEY_REUSED()
            if found[:1] == _DONE:
                return _replay(request, Answer.decode(found[1 + _DIGEST :]))
            if monotonic() >= end:
                return _WAIT_AGAIN
            flight = self._flights.get(key)
            if flight is not None:
                await flight.wait(end - monotonic())
            else:
                await anyio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _run(self, exchange: Exchange, key: str, mark: bytes, wanted: bytes) -> None:
        """Keep what the handler will answer."""
        flight = self._flights[key] = Flight()
        exchange.memo[Idempotent, key] = True

        async def ended(answer: Answer | None) -> None:
            try:
                # The response has left; without the store its retries have to wait for the lease to end.
                with contextlib.suppress(Unavailable):
                    if answer is None:
                        await self._leases.release(key, mark, ttl=self._check.lease)
                    else:
                        await self._keep(key, mark, wanted, answer)
            finally:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.finish(answer)

        observe(exchange, ended)

    async def _keep(self, key: str, mark: bytes, wanted: bytes, answer: Answer) -> None:
        """Put the answer in the place of the mark; when there is no room for it, that it was given."""
        try:
            kept = _DONE + wanted + answer.encode()
            await self._store.put(key, kept, ttl=self._check.keep, expected=mark)
        except Unavailable:
            # The mark dies with its lease: then a retry would pay again (attack DDP-08).
            kept = _DONE + wanted + Answer(answer.status).encode()
            await self._store.put(key, kept, ttl=self._check.keep, expected=mark)
