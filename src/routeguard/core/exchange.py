"""One request and its response, while policies decide about it (RFC 9110 section 3.4 calls the pair an exchange)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.secret import new_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from routeguard.core.decision import Decision
    from routeguard.core.principal import Principal
    from routeguard.core.request import RequestView

SCOPE_KEY: Final = "routeguard"
"""Where the exchange lives in an ASGI scope. Set by the edge only; a client cannot reach it (attack AZ-07)."""

_CARRIED: Final = ("principal", "resource", "defaults", "body_limit", "read_body", "observer", "ends_with_principal")
_FIELD_VALUE: Final = re.compile(rb"[\x20-\x7e\x80-\xff\t]*")


@dataclass(frozen=True, slots=True)
class Captured:
    """A whole response, as it left the handler."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Exchange:
    """The only mutable object of the pipeline.

    `principal` is None until an identity check found one; `resource` is what an ownership check loaded;
    `effects` are response headers the edge appends, refusals included; `defaults` are those it adds only where the
    handler did not set the name itself; `decision` is None until somebody decided; `facts` holds what slices
    remember for the rest of this exchange, by class; `body_limit` is in bytes.

    `read_body` and `observer` are the edge's two offers to checks that must see a whole request or response
    (de-duplication, idempotency): the first returns the bounded body and replays it to the handler, the second is
    called once with status, headers and body of the response, or with None when there was no whole answer.
    `spent` holds what became of credentials that are good once, for all branches and whatever headers are changed on
    the way: the same exchange may ask again. `ends_with_principal` is whether a streamed response is ended when its
    principal is signed out or revoked. `departed`, on the exchange that is no branch, is called when the answer's
    first bytes have gone out; `ended`, on the same, once with the status of the answer, or with None when there was
    none.
    """

    __slots__ = (
        "_origin", "_request_id", "body_limit", "decision", "defaults", "departed", "effects", "ended",
        "ends_with_principal", "facts", "observer", "principal", "read_body", "request", "resource", "spent",
    )  # fmt: skip

    def __init__(self, request: RequestView, *, body_limit: int | None = None) -> None:
        self.request = request
        self.principal: Principal | None = None
        self.resource: Any = None
        self.effects: list[tuple[bytes, bytes]] = []
        self.defaults: tuple[tuple[bytes, bytes], ...] = ()
        self.decision: Decision | None = None
        self.facts: dict[Any, Any] = {}
        self.body_limit = body_limit
        self.read_body: Callable[[], Awaitable[bytes]] | None = None
        self.observer: Callable[[Captured | None], Awaitable[None]] | None = None
        self.departed: Callable[[], None] | None = None
        self.ended: Callable[[int | None], Awaitable[None]] | None = None
        self.ends_with_principal = True
        self.spent: dict[Any, Any] = {}
        self._origin: Exchange | None = None
        self._request_id: str | None = None

    @property
    def root(self) -> str:
        """The path below which browsers find the application, percent-encoded: ``""`` or ``"/prefix"``.

        Every link, form and redirect of ours begins with it.
        """
        return "" if self._origin is None else self._origin.root

    @property
    def route_path(self) -> str:
        """The path as the application's routes have it, without any prefix. Decides nothing."""
        return self.request.path if self._origin is None else self._origin.route_path

    @property
    def request_id(self) -> str:
        """The name of this request in the log and, when it is refused, in the answer. Made when first asked for."""
        if self._origin is not None:
            return self._origin.request_id
        if self._request_id is None:
            self._request_id = "req_" + new_token(9)
        return self._request_id

    def add_header(self, name: bytes, value: bytes) -> None:
        """Append a response header. Raises ValueError for CR, LF or NUL (attack HTTP-03)."""
        if not _FIELD_VALUE.fullmatch(value):
            raise ValueError("a header value holds a control character")
        self.effects.append((name, value))

    def lineage(self) -> Iterator[Exchange]:
        """Yield this exchange and those it is a branch of: for what has to stay when the branch is refused."""
        exchange: Exchange | None = self
        while exchange is not None:
            yield exchange
            exchange = exchange._origin  # noqa: SLF001 - of its own class

    def fork(self) -> Exchange:
        """Return a copy for one branch of `|`, so that a refused branch leaves no trace."""
        other = Exchange(self.request, body_limit=self.body_limit)
        other.effects = self.effects.copy()
        other.facts = self.facts.copy()
        other._origin = self
        other.spent = self.spent
        for name in _CARRIED:
            setattr(other, name, getattr(self, name))
        return other

    def adopt(self, fork: Exchange) -> None:
        """Take over what a passing branch found."""
        self.effects = fork.effects
        self.facts = fork.facts
        for name in _CARRIED:
            setattr(self, name, getattr(fork, name))
