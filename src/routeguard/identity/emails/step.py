"""The sign-in step that asks for a proven address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from routeguard.identity.users.problems import EMAIL_UNVERIFIED

if TYPE_CHECKING:
    from routeguard.core.problem import Problem
    from routeguard.foundation.db.database import Transaction
    from routeguard.identity.sessions.proof import ProvenUser


@dataclass(frozen=True, slots=True)
class VerifiedEmailRequired:
    """Refuses users whose address is unproven, whatever method they sign in by."""

    async def __call__(self, tx: Transaction, proven: ProvenUser[Any], /) -> Problem | None:  # noqa: ARG002
        """Return 403 email-unverified, which `SignIn` turns into its 401 where the answer must not tell."""
        return None if proven.user.email_verified else EMAIL_UNVERIFIED()
