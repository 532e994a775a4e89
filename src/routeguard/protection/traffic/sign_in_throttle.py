"""How often passwords may be tried: per account with a growing delay, and per address.

The account is whatever was typed, whether it exists or not, so that nothing here tells the two apart (attack
ENUM-07). No user is ever locked out: a delay ends by itself, attempts made during it do not lengthen it, and from an
address where the account signed in before it is counted apart, so that strangers cannot keep its owner out (RL-11).
"""

from __future__ import annotations

import contextlib
import unicodedata
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import anyio
from typing_extensions import Self

from routeguard.core.address import Address, address_key
from routeguard.core.errors import Unavailable
from routeguard.core.secret import digest
from routeguard.foundation.ephemeral.protocol import Attempt, Ephemeral, Quota, hash_tag
from routeguard.protection.traffic.models import ThrottleSettings
from routeguard.protection.traffic.problems import QUOTA_EXCEEDED

if TYPE_CHECKING:
    from routeguard.core.problem import Problem

_HOUR: Final = 3600.0
_KNOWN_FOR: Final = 90 * 24 * _HOUR
_POLICY_NAME: Final = "sign-in"
_OF_PENDING: Final = Quota(limit=1, period=_HOUR, burst=5)
"""Guesses at the further proof of one pending sign-in. It ends before one is regained."""


class SignInThrottle:
    """Reserves guesses: `reserve` counts one in the same step that allows it, so a thousand at once get no more.

    A success gives its own reservation back and nothing else: what failed before stays counted, for the account as
    for the address (attack RL-10). So does a guess that an outage, or a client that left, kept from a verdict.
    """

    def __init__(self, store: Ephemeral, settings: ThrottleSettings | None = None) -> None:
        settings = settings or ThrottleSettings()
        self._store = store
        self._account = _of_account(settings)
        self._address = _of_address(settings)

    async def reserve(
        self, email: str | None, address: Address | None, *, pending: str | None = None
    ) -> Guess | Problem:
        """Reserve one guess, or return 429 `quota-exceeded` with Retry-After. Raises Unavailable (fail closed).

        The answer is the same for accounts that exist and for those that do not, and tells no count. Without `email`
        the address alone is counted. `pending` names a sign-in that waits for a further proof: guesses at those are
        counted for themselves, for the account and for this one sign-in (attacks MFA-01, MFA-15).
        """
        mark = None if email is None else _known_key(email, address)
        known = mark is not None and await self._store.get(mark) is not None
        attempts = self._attempts(email, address, known=known, pending=pending)
        hits = await self._store.hit(attempts)
        refused = [hit for hit in hits if not hit.allowed]
        if not refused:
            return Guess(self._store, attempts, mark)
        wait = str(max(ceil(max(hit.reset for hit in refused)), 1))
        members: dict[str, Any] = {"violated-policies": [_POLICY_NAME]}
        return QUOTA_EXCEEDED(headers=(("retry-after", wait),), **members)

    def _attempts(
        self, email: str | None, address: Address | None, *, known: bool, pending: str | None
    ) -> list[Attempt]:
        """Return what one try spends: of the account, from here or from anywhere, and of the address (RL-22)."""
        attempts: list[Attempt] = []
        if email is not None:
            what = "sign-in" if pending is None else "further-proof"
            account = f"{_account_tag(email)}:{what}:{_place(address) if known else 'anywhere'}"
            attempts += [Attempt(f"{account}:{step}", quota) for step, quota in enumerate(self._account)]
            if pending is not None:
                attempts.append(Attempt(f"{_account_tag(email)}:pending:{pending}", _OF_PENDING))
        attempts.append(Attempt(f"{hash_tag(f'ip:{_place(address)}')}:sign-in", self._address))
        return attempts


class Guess:
    """One reserved guess: ``async with await throttle.reserve(...) as guess``. The verdict is told inside.

    Without a verdict (the database is away, the hashing queue is full, the request is cancelled) the caller has not
    learned whether the password was right, so it is given back at the end. No number of racing guesses gains by it:
    each holds its reservation until it has a verdict or can get none any more.
    """

    __slots__ = ("_attempts", "_judged", "_mark", "_store")

    def __init__(self, store: Ephemeral, attempts: list[Attempt], mark: str | None) -> None:
        self._store = store
        self._attempts = attempts
        self._mark = mark
        self._judged = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._judged:
            self._judged = True
            await self._give_back()

    def failed(self) -> None:
        """Keep it counted: the password was wrong, or is treated like a wrong one."""
        self._judged = True

    async def succeeded(self) -> None:
        """Give it back, and remember that the account signs in from this address."""
        self._judged = True
        await self._give_back()
        if self._mark is not None:
            with contextlib.suppress(Unavailable):
                await self._store.put(self._mark, b"", ttl=_KNOWN_FOR)

    async def _give_back(self) -> None:
        # A store that is away now takes nothing from a user who has just signed in: a try stays counted.
        with anyio.CancelScope(shield=True), contextlib.suppress(Unavailable):
            await self._store.hit([attempt._replace(cost=-attempt.cost) for attempt in self._attempts])


def account_key(email: str) -> bytes:
    """Return the digest an account is counted under: one for all spellings that reach one mailbox (attack RL-20).

    NFKC and case folding first (Unicode UAX #15), then everything from the first `+` of the local part is dropped.
    Dots are kept: most providers tell them apart. The digest keeps addresses out of the store.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email.strip()).casefold())
    local, at, domain = folded.rpartition("@")
    if at and (mailbox := local.partition("+")[0]):
        folded = f"{mailbox}@{domain}"
    return digest(folded.encode("utf-8", "surrogatepass"))


def _account_tag(email: str) -> str:
    return hash_tag(f"acc:{account_key(email)[:16].hex()}")


def _place(address: Address | None) -> str:
    return address_key(address)


def _known_key(email: str, address: Address | None) -> str:
    return f"{_account_tag(email)}:known:{_place(address)}"


def _of_account(settings: ThrottleSettings) -> tuple[Quota, ...]:
    """Return the quotas of one account: each next bucket is larger, and drips slower."""
    longest = settings.longest_delay.total_seconds()
    steps = ((0, 30.0), (5, 120.0), (10, 600.0), (20, longest))
    return tuple(Quota(limit=1, period=min(delay, longest), burst=settings.free + more) for more, delay in steps)


def _of_address(settings: ThrottleSettings) -> Quota:
    """Return the quota of one address."""
    return Quota(limit=settings.address_hourly, period=_HOUR, burst=settings.address_burst)
