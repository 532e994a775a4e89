"""What other slices ask of passwords, without knowing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange


class PasswordProof(Protocol):
    """Confirms that the holder of a session also knows the password, before something grave is changed."""

    async def prove(self, user_id: str, password: str, *, exchange: Exchange, field: str = "password") -> None:
        """Return if it is the user's password. Counts as a sign-in attempt.

        Raises ProblemError 401 invalid-credentials if it is not or there is none, 422 for a text that cannot be a
        password (naming `field`), 429 and 503.
        """
        ...
