"""What both clients share of httpx2: requests as it has them, answers read up to a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.client.errors import ClientProblem, ServiceUnavailable
from routeguard.client.messages import MAXIMUM_ANSWER
from routeguard.client.models import Answer
from routeguard.core.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    import httpx2

    from routeguard.client.models import Call

TIMEOUT: Final = 10.0
"""Seconds to wait for a connection, or for the next part of an answer."""
USER_AGENT: Final = "routeguard-client"
"""The same in every version: refresh tokens are bound to it."""


def load_httpx() -> ModuleType:
    """Import httpx2. Raises ConfigError where it is not installed."""
    try:
        import httpx2  # noqa: PLC0415 - the client extra
    except ModuleNotFoundError:
        raise ConfigError('the client needs `pip install "routeguard[client]"` (httpx2 is missing)') from None
    return httpx2


def request_of(
    http: httpx2.Client | httpx2.AsyncClient, base: str, call: Call, *, user_agent: str, cookies: bool
) -> httpx2.Request:
    """Return a call as a request of httpx2, without cookies where they are not the credential."""
    headers = {"user-agent": user_agent, **call.headers}
    # An empty body has no length where none is expected; servers want one with POST and its kin, and httpx2 knows.
    request = http.build_request(call.method, base + call.target, headers=headers, content=call.body or None)
    if not cookies:
        request.headers.pop("cookie", None)
    return request


def grown(body: bytearray, chunk: bytes, status: int) -> None:
    """Add a part of an answer. Raises ClientProblem for one that is longer than any of ours."""
    body += chunk
    if len(body) > MAXIMUM_ANSWER:
        raise ClientProblem(status, detail="The answer is too long: is this the service's URL?")


def answer_of(response: httpx2.Response, body: bytearray) -> Answer:
    """Return a response as the flows see it."""
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, bytes(body))


def no_answer() -> ServiceUnavailable:
    """Return the error for a call that nothing came back from."""
    return ServiceUnavailable(answered=False, detail="The service did not answer.")
