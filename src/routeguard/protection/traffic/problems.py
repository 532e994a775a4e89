"""The refusals the traffic layers add."""

from __future__ import annotations

from typing import Final

from routeguard.core.problem import ProblemType

FORGERY_SUSPECTED: Final = ProblemType(
    "forgery-suspected", 403, "Forgery suspected", "The request does not prove that it comes from our own pages."
)
HOST_NOT_ALLOWED: Final = ProblemType("host-not-allowed", 400, "Host not allowed", "This host name is not served here.")
NETWORK_NOT_ALLOWED: Final = ProblemType(
    "network-not-allowed", 403, "Network not allowed", "Requests from this network are not accepted."
)
CLIENT_NOT_ALLOWED: Final = ProblemType(
    "client-not-allowed", 403, "Client not allowed", "Requests from this kind of client are not accepted."
)
QUOTA_EXCEEDED: Final = ProblemType(
    "quota-exceeded",
    429,
    "Quota exceeded",
    "Too many requests; try again later.",
    # Registered by the RateLimit fields draft, so the URI is not ours.
    uri="https://iana.org/assignments/http-problem-types#quota-exceeded",
)
REQUEST_IN_PROGRESS: Final = ProblemType(
    "request-in-progress", 409, "Request in progress", "The same request is still being worked on."
)
IDEMPOTENCY_KEY_MISSING: Final = ProblemType(
    "idempotency-key-missing", 400, "Idempotency key missing", "Send an Idempotency-Key header."
)
IDEMPOTENCY_KEY_REUSED: Final = ProblemType(
    "idempotency-key-reused", 422, "Idempotency key reused", "This key was used for another request."
)

PROBLEMS: Final = (
    FORGERY_SUSPECTED,
    HOST_NOT_ALLOWED,
    NETWORK_NOT_ALLOWED,
    CLIENT_NOT_ALLOWED,
    QUOTA_EXCEEDED,
    REQUEST_IN_PROGRESS,
    IDEMPOTENCY_KEY_MISSING,
    IDEMPOTENCY_KEY_REUSED,
)
