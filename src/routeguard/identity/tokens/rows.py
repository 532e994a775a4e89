"""What the tables of tokens hold, and what is asked of them: plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from routeguard.identity.sessions.models import SessionState


class KeyRow(NamedTuple):
    """A signing key as stored. Times are in seconds since the epoch by the database's clock."""

    generation: int
    kid: str
    algorithm: str
    sealed: bytes
    public: str
    signs_from: float
    revoked_at: float | None


class Rotation(NamedTuple):
    """A presented refresh token, and the state of its family after a rotation.

    `now` is this process's steady time, which sessions are told by; `idle`, `life` and `grace` are in seconds.
    """

    user_id: str
    family_id: str
    generation: int
    presented: bytes
    successor: bytes
    binding: bytes
    now: float
    idle: float
    life: float
    grace: float

    def params(self) -> dict[str, Any]:
        """Return it as the parameters of statements, none of which is named like a column."""
        return {f"the_{name}": value for name, value in self._asdict().items()}


class FamilyRow(NamedTuple):
    """A live family with its session and the columns of its user.

    `current` says whether the token of the `Rotation` is the live one, `within_grace` whether the grace covers it.
    """

    state: SessionState
    user: tuple[Any, ...]
    client_id: str
    expires_at: float
    current_hash: bytes
    current: bool
    within_grace: bool


class Reused(NamedTuple):
    """Whose family was ended."""

    session_id: str
    client_id: str
