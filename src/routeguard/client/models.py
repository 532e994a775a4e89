"""What the client sends, receives and hands on. All of it is plain values."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypedDict, TypeVar

from routeguard.client.errors import ClientProblem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token, the refresh token that follows it, and how many seconds the first is good for."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int


class Session(TypedDict):
    """A session as the service tells it. Times are RFC 3339."""

    user: dict[str, Any]
    organization: dict[str, Any] | None
    role: str | None
    expires_at: str


class ListedSession(TypedDict):
    """One of the user's sessions; `current` is the one that asks."""

    id: str
    created_at: str
    last_seen_at: str
    expires_at: str
    user_agent: str
    address: str
    current: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `target` is the encoded path and query below the service's URL, `body` the raw content."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: header names in lower case, and the content decoded but not parsed."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


Flight: TypeAlias = Future[ClientProblem | None]
"""A renewal that is under way; its result is what it failed with.

Not a `core.single_flight.SingleFlight`, which is of one event loop: threads wait for this one, too.
"""


@dataclass(frozen=True, slots=True)
class Send:
    """Ask for a request to be made. Sent back: its `Answer`; thrown in: `ServiceUnavailable` when none came.

    With `cookies` those of the service go along; without, another credential is never mixed with a session.
    """

    call: Call
    cookies: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """Ask for a flow to be run to its end, even when its caller gives up meanwhile."""

    flow: Flow[Any]


@dataclass(frozen=True, slots=True)
class Await:
    """Ask to wait until another thread or task is done, well or not."""

    done: Flight


Step: TypeAlias = Send | Finish | Await
Flow: TypeAlias = Generator[Step, Any, T]
"""A conversation without I/O: it yields steps, is sent what came of each, and returns what it was for."""
