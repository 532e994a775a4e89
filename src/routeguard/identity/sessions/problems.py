"""The refusals sessions add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.problem import Problem, ProblemType

if TYPE_CHECKING:
    from datetime import timedelta

STEP_UP_REQUIRED: Final = ProblemType(
    "step-up-required", 401, "Step-up required", "Confirm that it is you: sign in again, then repeat the request."
)
INVALID_CREDENTIALS: Final = ProblemType(
    "invalid-credentials", 401, "Invalid credentials", "The e-mail address or the password is not right."
)
USER_SUSPENDED: Final = ProblemType("user-suspended", 403, "Account suspended", "This account is suspended.")

PROBLEMS: Final = (STEP_UP_REQUIRED, INVALID_CREDENTIALS, USER_SUSPENDED)


def invalid_credentials(debug: str | None = None) -> Problem:
    """Return the one 401 of sign-in.

    The same bytes for an unknown address, a wrong proof, a suspended user and an unproven address (attack ENUM-01).
    """
    return INVALID_CREDENTIALS(debug=debug, headers=(("www-authenticate", "Bearer"),))


def step_up_required(
    *, max_age: timedelta | None = None, acr_values: str | None = None, debug: str | None = None
) -> Problem:
    """Return the 401 that asks for a newer or stronger authentication (RFC 9470 section 3).

    `max_age` is how old the authentication may be, `acr_values` the assurance levels wanted, space-separated; both
    are members of the problem and parameters of the challenge.
    """
    challenge = ['Bearer error="insufficient_user_authentication"']
    members: dict[str, object] = {}
    if acr_values is not None:
        challenge.append(f'acr_values="{acr_values}"')
        members["acr_values"] = acr_values
    if max_age is not None:
        seconds = int(max_age.total_seconds())
        challenge.append(f'max_age="{seconds}"')
        members["max_age"] = seconds
    return Problem(
        STEP_UP_REQUIRED,
        STEP_UP_REQUIRED.detail,
        members=members,
        debug=debug,
        headers=(("www-authenticate", ", ".join(challenge)),),
    )
