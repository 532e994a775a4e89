"""The refusals users add."""

from __future__ import annotations

from typing import Final

from routeguard.core.problem import VALIDATION_FAILED, Problem, ProblemType

LAST_ADMIN: Final = ProblemType(
    "last-admin", 409, "Last administrator", "The only administrator cannot be demoted, suspended or deleted."
)
LINK_EXPIRED: Final = ProblemType(
    "link-expired", 400, "Link expired", "This link is not valid any more. Ask for a new one."
)
"""Used, expired, replaced, made up or meant for something else: which of these is not told (attacks ML-05, ML-15)."""
EMAIL_UNVERIFIED: Final = ProblemType(
    "email-unverified", 403, "E-mail address not verified", "Open the link we mailed you, then sign in."
)

PROBLEMS: Final = (LAST_ADMIN, LINK_EXPIRED, EMAIL_UNVERIFIED)


def invalid(field: str, detail: str) -> Problem:
    """Return the 422 that names one member of the body by its JSON pointer (RFC 6901). Never repeats its value."""
    return VALIDATION_FAILED(errors=[{"pointer": f"/{field}", "detail": detail}])
