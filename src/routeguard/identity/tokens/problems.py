"""The refusals tokens add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.problem import ProblemType

if TYPE_CHECKING:
    from routeguard.core.problem import Problem

INVALID_TOKEN: Final = ProblemType("invalid-token", 401, "Invalid token", "Sign in again to get new tokens.")

PROBLEMS: Final = (INVALID_TOKEN,)

_CHALLENGE: Final = (("www-authenticate", 'Bearer error="invalid_token"'),)


def invalid_token(debug: str | None = None) -> Problem:
    """Return the one answer to a refresh token that is unknown, spent, expired or revoked (RFC 6750 section 3.1)."""
    return INVALID_TOKEN(debug=debug, headers=_CHALLENGE)
