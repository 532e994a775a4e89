"""One request and its response, while policies decide about it (RFC 9110 section 3.4 calls the pair an exchange)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.secret import new_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from routeguard.core.credentials import Credential
    from routeguard.core.decision import Decision
    from routeguard.core.principal import Principal
    from routeguard.core.request import RequestView

SCOPE_KEY: Final = "routeguard"
"""Where the exchange lives in an ASGI scope. Set by the edge only; a client cannot reach it (attack AZ-07)."""

_CARRIED: Final = (
    "principal",
    "_found_by",
    "resource",
    "defaults",
    "body_limit",
    "read_body",
    "observer",
    "ends_with_principal",
)
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
    handler did not set the name itself; `decision` is None until there is one; `facts` holds what slices
    remember for the rest of this exchange, by class; `body_limit` is in bytes.

    `read_body` and `observer` are the edge's two offers to checks that must see a whole request or response
    (de-duplication, idempotency): the first returns the bounded body and replays it to the handler, the second is
    called once with status, headers and body of the response, or with None when there was no whole answer.
    `memo` holds what is found out once a request, for all branches of `|`, refused ones included, and whatever headers
    are changed on the way: what a credential that is good once was worth, that an operation has been claimed. Its keys
    hold all that an answer depends on. `ends_with_principal` is whether a streamed response is ended when its
    principal is signed out or revoked. `departed`, on the exchange that is no branch, is called when the answer's
    first bytes have gone out; `ended`, on the same, once with the status of the answer, or with None when there was
    none.
    """

    __slots__ = (
        "_found_by",
        "_origin",
        "_request_id",
        "body_limit",
        "decision",
        "defaults",
        "departed",
        "effects",
        "ended",
        "ends_with_principal",
        "facts",
        "memo",
        "observer",
        "principal",
        "read_body",
        "request",
        "resource",
    )

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
        self.memo: dict[Any, Any] = {}
        self._found_by: tuple[Principal, Credential] | None = None
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

    @property
    def credential(self) -> Credential | None:
        """By what the principal, as it is now, was found; None where no check said so.

        Who asks whether a browser adds it by itself takes None for yes: a check that forgets to say it is safe.
        """
        found = self._found_by
        return found[1] if found is not None and found[0] is self.principal else None

    def record_credential(self, principal: Principal, credential: Credential) -> None:
        """Record by which credential `principal` was found. It says nothing of any other principal.

        An attacker's own key beside a victim's cookie must not speak for the cookie (attack CSRF-01).
        """
        self._found_by = (principal, credential)

    @property
    def original(self) -> Exchange:
        """The exchange this is a branch of, or this one."""
        return self if self._origin is None else self._origin.original

    def replace_cookies(self, *cookies: bytes) -> None:
        """Put Set-Cookies in the place of what was said of cookies so named, here and in what this is a branch of.

        For cookies whose old value is spent: a browser that is not told the new one where the branch is refused would
        present the old one again.
        """
        mine = tuple(cookie[: cookie.index(b"=") + 1] for cookie in cookies)
        self.effects[:] = [pair for pair in self.effects if pair[0] != b"set-cookie" or not pair[1].startswith(mine)]
        for cookie in cookies:
            self.add_header(b"set-cookie", cookie)
        if self._origin is not None:
            self._origin.replace_cookies(*cookies)

    def fork(self) -> Exchange:
        """Return a copy for one branch of `|`, so that a refused branch leaves no trace."""
        other = Exchange(self.request, body_limit=self.body_limit)
        other.effects = self.effects.copy()
        other.facts = self.facts.copy()
        other._origin = self
        other.memo = self.memo
        for name in _CARRIED:
            setattr(other, name, getattr(self, name))
        return other

    def adopt(self, fork: Exchange) -> None:
        """Take over what a passing branch found."""
        self.effects = fork.effects
        self.facts = fork.facts
        for name in _CARRIED:
            setattr(self, name, getattr(fork, name))
