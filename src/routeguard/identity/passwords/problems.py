"""The refusals passwords add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.problem import ProblemType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routeguard.core.problem import Problem

PASSWORD_REJECTED: Final = ProblemType("password-rejected", 422, "Password rejected", "Choose another password.")

PROBLEMS: Final = (PASSWORD_REJECTED,)

REASONS: Final = {
    "too-short": "Use at least {minimum} characters.",
    "too-long": "Use at most {maximum} characters.",
    "common": "This is one of the most common passwords, which are guessed first: choose another.",
    "contextual": "It is little more than your name, your address or the name of this service.",
}


def password_rejected(reasons: Sequence[str], field: str, **limits: int) -> Problem:
    """Return the 422 that says why: `reasons` are codes, `errors` sentences for the member `field` of the body."""
    sentences = [REASONS[reason].format(**limits) for reason in reasons]
    errors = [{"pointer": f"/{field}", "detail": sentence} for sentence in sentences]
    return PASSWORD_REJECTED(" ".join(sentences), reasons=list(reasons), errors=errors)
