"""What becomes of a streamed response when its principal is signed out or revoked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from typing_extensions import override

from routeguard.core.errors import ConfigError
from routeguard.core.policy import BoundCheck, Check, Outcome, Policy, Stage

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

StreamEnd = Literal["end", "finish"]


def stream_policy(stream: StreamEnd) -> Policy:
    """Return what an identity policy adds for `stream`: nothing for "end", which is the default.

    Raises ConfigError for another word.
    """
    if stream not in {"end", "finish"}:
        raise ConfigError(f"stream={stream!r} is neither 'end' nor 'finish'")
    return Policy() if stream == "end" else Policy((StreamsFinish(),))


@dataclass(frozen=True, slots=True)
class StreamsFinish(Check):
    """A response that has begun is sent to its end, although its principal has ended meanwhile."""

    stage = Stage.TRANSPORT

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Return a check that notes it."""
        return _finish

    @override
    def describe(self) -> str:
        return "streams finish"


async def _finish(exchange: Exchange) -> Outcome:
    exchange.ends_with_principal = False
    return None
