"""Problems: the refusals a caller is told about (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.errors import ProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

TYPE_BASE: Final = "https://routeguard.dev/problems/"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of refusal. Every type has a page `docs/problems/<code>.md`, which its URI resolves to."""

    code: str
    status: int
    title: str
    detail: str | None = None
    """The sentence the caller reads unless a Problem brings its own. Never holds input or internals."""
    uri: str | None = None
    """Only for types registered elsewhere; else made from the code."""

    @property
    def type(self) -> str:
        """The `type` member: a URI that is also a page."""
        return self.uri or TYPE_BASE + self.code

    def __call__(
        self,
        detail: str | None = None,
        *,
        debug: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        **members: Any,
    ) -> Problem:
        """Make a `Problem` of this type. `debug` goes to the log only; `members` are public extensions."""
        return Problem(
            self, detail if detail is not None else self.detail, members=members, debug=debug, headers=headers
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal as a value: what the caller is told, and (apart) what only the log is told."""

    type: ProblemType
    detail: str | None = None
    members: Mapping[str, Any] = field(default_factory=dict)
    debug: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    """Extra response headers, such as `WWW-Authenticate` or `Retry-After`."""

    @property
    def status(self) -> int:
        """The HTTP status; equals the body's `status` member (RFC 9457 section 3.1.2)."""
        return self.type.status

    def body(self, instance: str | None = None) -> dict[str, Any]:
        """Return the public members as a JSON-able dict. `debug` is never among them."""
        body: dict[str, Any] = {"type": self.type.type, "title": self.type.title, "status": self.type.status}
        if self.detail is not None:
            body["detail"] = self.detail
        if instance is not None:
            body["instance"] = instance
        return body | dict(self.members)

    def with_debug(self, debug: str) -> Self:
        """Return the same answer with a cause for the log. The caller sees no difference."""
        return replace(self, debug=debug)

    def error(self) -> ProblemError:
        """Return the exception a service raises to leave its transaction with this refusal."""
        return ProblemError(self)


# The types the pipeline itself needs. Each slice adds its own in `problems.py`.
MALFORMED_REQUEST: Final = ProblemType("malformed-request", 400, "Malformed request")
AUTHENTICATION_REQUIRED: Final = ProblemType(
    "authentication-required", 401, "Authentication required", "Sign in, or send a valid credential."
)
PERMISSION_DENIED: Final = ProblemType("permission-denied", 403, "Permission denied", "You may not do this.")
NOT_FOUND: Final = ProblemType("not-found", 404, "Not found")
METHOD_NOT_ALLOWED: Final = ProblemType("method-not-allowed", 405, "Method not allowed")
CONTENT_TOO_LARGE: Final = ProblemType("content-too-large", 413, "Content too large")
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType("unsupported-media-type", 415, "Unsupported media type")
VALIDATION_FAILED: Final = ProblemType(
    "validation-failed", 422, "Validation failed", "One or more fields are not valid."
)
INTERNAL_ERROR: Final = ProblemType("internal-error", 500, "Internal error", "Something went wrong on our side.")
GUARD_NOT_APPLIED: Final = ProblemType(
    "guard-not-applied", 500, "Guard not applied", "This route has no protection decision, so it does not answer."
)
TEMPORARILY_UNAVAILABLE: Final = ProblemType(
    "temporarily-unavailable", 503, "Temporarily unavailable", "Try again in a moment."
)


def authentication_required(debug: str | None = None) -> Problem:
    """Return the one 401 of guarded routes: the same bytes whatever the cause (RFC 6750 section 3, attack ENUM-01)."""
    return AUTHENTICATION_REQUIRED(debug=debug, headers=(("www-authenticate", "Bearer"),))


def unavailable(what: str, retry_after: int = 2) -> Problem:
    """Return 503 with Retry-After (RFC 9110 section 10.2.3). `what` is for the log."""
    return TEMPORARILY_UNAVAILABLE(debug=what, headers=(("retry-after", str(retry_after)),))
