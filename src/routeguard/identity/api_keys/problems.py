"""The refusals API keys add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.problem import Problem, ProblemType

if TYPE_CHECKING:
    from collections.abc import Sequence

INVALID_API_KEY: Final = ProblemType("invalid-api-key", 401, "Invalid API key", "This API key is not valid.")
"""Made up, mistyped, revoked, expired, used up or of a suspended user: the caller is not told (attack KEY-01)."""
INSUFFICIENT_SCOPE: Final = ProblemType(
    "insufficient-scope", 403, "Insufficient scope", "This API key may not be used for this."
)
TOO_MANY_API_KEYS: Final = ProblemType(
    "too-many-api-keys", 409, "Too many API keys", "Revoke a key you no longer need, then try again."
)
API_KEY_CONFLICT: Final = ProblemType(
    "api-key-conflict", 409, "Changed meanwhile", "Another request changed this API key at the same moment. Look again."
)

PROBLEMS: Final = (INVALID_API_KEY, INSUFFICIENT_SCOPE, TOO_MANY_API_KEYS, API_KEY_CONFLICT)


def invalid_api_key(debug: str | None = None) -> Problem:
    """Return the one 401 for keys: the same bytes whatever the cause (RFC 6750 section 3.1)."""
    return INVALID_API_KEY(debug=debug, headers=(("www-authenticate", 'Bearer error="invalid_token"'),))


def insufficient_scope(
    *, required: Sequence[str] = (), missing: Sequence[str] = (), privilege: str | None = None
) -> Problem:
    """Return the 403 that says what was asked of the key and which of it is missing (RFC 6750 section 3.1)."""
    members: dict[str, Any] = {}
    challenge = 'Bearer error="insufficient_scope"'
    if required:
        members |= {"required": list(required), "missing": list(missing)}
        challenge += f', scope="{" ".join(required)}"'
    if privilege is not None:
        members["privilege"] = privilege
    return INSUFFICIENT_SCOPE(headers=(("www-authenticate", challenge),), **members)
