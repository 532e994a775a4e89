"""Sign-ins that wait for a further proof: one row each, found by a handle that is good once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.secret import new_token

if TYPE_CHECKING:
    from routeguard.foundation.db.database import Transaction
    from routeguard.identity.users.one_time import OneTimeTokens, Redeemed

LIFE: Final = timedelta(minutes=10)
FAMILY: Final = "sign-in"
"""The purpose of their tokens, before a colon and the name of each."""
_SLOT_BYTES: Final = 6
_SLOT: Final = re.compile(r"[A-Za-z0-9_-]{8}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What was proven before, and to which account the further guesses count."""

    user_id: str
    account: str
    amr: tuple[str, ...]
    aal: int
    lasting: bool


class PendingSignIns:
    """Stores pending sign-ins as one-time tokens, hashed, for ten minutes.

    Each has a purpose of its own, so that a stranger who knows the password cannot void the owner's by beginning
    another (attack RL-11).
    """

    def __init__(self, tokens: OneTimeTokens) -> None:
        self._tokens = tokens

    async def keep(self, tx: Transaction, begun: Begun) -> str:
        """Store one and return its handle. Expired ones of the user are removed."""
        await self._tokens.void_family(tx, begun.user_id, FAMILY, expired_only=True)
        slot = new_token(_SLOT_BYTES)
        data = {"account": begun.account, "amr": begun.amr, "aal": begun.aal, "lasting": begun.lasting}
        return f"{slot}.{await self._tokens.issue(tx, _purpose(slot), begun.user_id, ttl=LIFE, data=data)}"

    async def find(self, tx: Transaction, handle: str) -> Begun | None:
        """Return what `take` would, consuming nothing."""
        slot, _, token = handle.partition(".")
        return _begun(await self._tokens.peek(tx, _purpose(slot), token)) if _SLOT.fullmatch(slot) else None

    async def take(self, tx: Transaction, handle: str) -> Begun | None:
        """Consume a handle in one statement; None when it is used, expired, void or made up."""
        slot, _, token = handle.partition(".")
        return _begun(await self._tokens.redeem(tx, _purpose(slot), token)) if _SLOT.fullmatch(slot) else None

    async def void(self, tx: Transaction, user_id: str) -> None:
        """Make all pending sign-ins of a user void: what they were begun with may not count any more."""
        await self._tokens.void_family(tx, user_id, FAMILY)


def _purpose(slot: str) -> str:
    return f"{FAMILY}:{slot}"


def _begun(redeemed: Redeemed | None) -> Begun | None:
    if redeemed is None:
        return None
    data: dict[str, Any] = dict(redeemed.data)
    return Begun(
        user_id=redeemed.user_id,
        account=data["account"],
        amr=tuple(data["amr"]),
        aal=data["aal"],
        lasting=data["lasting"],
    )
