"""What a call can end with besides its answer. No error holds a credential, a body that was sent or a URL's query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.errors import RouteguardError

if TYPE_CHECKING:
    from collections.abc import Mapping

UNAVAILABLE: Final = 503
NO_STATUS: Final = 0
"""Of an answer that never came."""


class ClientProblem(RouteguardError):
    """The service refused a call, with a problem of RFC 9457.

    `type` is the URI of the problem, `code` the end of it (`invalid-credentials`), `status` the HTTP status, `detail`
    a sentence for people, `members` all other members of the problem, `retry_after` the seconds to wait or None. An
    answer that is no problem at all (a proxy's page, a redirect) has the type `about:blank`.
    """

    def __init__(
        self,
        status: int,
        *,
        type: str = "about:blank",  # noqa: A002 - the word of RFC 9457
        title: str = "",
        detail: str = "",
        members: Mapping[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.members: dict[str, Any] = dict(members or {})
        self.retry_after = retry_after
        said = f"{status} {self.code}" if status else ""
        super().__init__(f"{said}: {detail or title}".strip(": "))

    @property
    def code(self) -> str:
        """The end of the type's URI, which is also the name of its page in the documentation."""
        return self.type.rstrip("/").rpartition("/")[2]


class ServiceUnavailable(ClientProblem):
    """The service could not tell (503), or there was no answer at all: try again, and keep the user signed in.

    `answered` is False when no answer came, and then `status` is 0 and what was asked for may have been done or not.
    """

    def __init__(self, *, answered: bool = True, **more: Any) -> None:
        self.answered = answered
        super().__init__(UNAVAILABLE if answered else NO_STATUS, **more)


class StepUpRequired(ClientProblem):
    """The user must authenticate again, then the call can be repeated (RFC 9470).

    `max_age` is how many seconds old the proof may be, `acr_values` which kinds of proof would do; None and () where
    the service does not say.
    """

    def __init__(
        self, status: int, *, max_age: int | None = None, acr_values: tuple[str, ...] = (), **more: Any
    ) -> None:
        self.max_age = max_age
        self.acr_values = acr_values
        super().__init__(status, **more)
