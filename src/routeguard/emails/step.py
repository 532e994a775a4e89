"""The sign-in step that asks for a proven address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from routeguard.users.problems import EMAIL_UNVERIFIED

if TYPE_CHECKING:
    from routeguard.core.problem import Problem
    from routeguard.db.database import Transaction
    from routeguard.sessions.sign_in import SignInAttempt


@dataclass(frozen=True, slots=True)
class VerifiedEmailRequired:
    """Keeps out whoever has not proven his address, whatever method he signs in by."""

    async def __call__(self, tx: Transaction, attempt: SignInAttempt[Any], /) -> Problem | None:  # noqa: ARG002
        """Return 403 email-unverified, which sign-in methods that must not tell turn into their own refusal."""
        return None if attempt.user.email_verified else EMAIL_UNVERIFIED()
