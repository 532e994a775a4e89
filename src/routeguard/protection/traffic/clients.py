"""Rules about what a client says it is. A courtesy between honest programs: liars name themselves as they like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from routeguard.core.errors import ConfigError
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.protection.traffic.problems import CLIENT_NOT_ALLOWED

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

_LONGEST: Final = 1024
"""Bytes of a User-Agent that are looked at; a longer one is refused, so that nothing hides behind padding."""


def clients(*, deny: Iterable[str] = (), allow: Iterable[str] = (), named: bool = False) -> Policy:
    """Return the policy that answers 403 `client-not-allowed` by the User-Agent field.

    `deny` and `allow` hold plain words, found anywhere and in any case; ``"^curl/"`` only at the beginning. `allow`
    wins over `deny`: ``clients(deny=["bot"], allow=["Googlebot"])``. ``named=True`` refuses clients without a name.
    No regular expressions: there is nothing an input could slow down (attack INJ-04).
    """
    return Policy((Clients(_words(deny), _words(allow), named),))


@dataclass(frozen=True, slots=True)
class Clients(Check):
    """The User-Agent holds no word of `deny`, or one of `allow`."""

    stage = Stage.NETWORK

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    named: bool = False

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile. Raises ConfigError for a rule that matches everything or nothing."""
        words = (*self.deny, *self.allow)
        findings = [f"client rule {word!r} is empty or not ASCII" for word in words if not _usable(word)]
        if not self.deny and not self.named:
            findings.append("clients() denies nothing")
        if findings:
            raise ConfigError(findings)
        denied, denied_first = _split(self.deny)
        allowed, allowed_first = _split(self.allow)
        named = self.named

        # Clients come back with the same name; a thousand names of a kilobyte are remembered at most.
        @lru_cache(maxsize=1024)
        def is_denied(agent: bytes) -> bool:
            agent = agent.lower()
            if not agent.startswith(denied_first) and not any(word in agent for word in denied):
                return False
            return not agent.startswith(allowed_first) and not any(word in agent for word in allowed)

        async def welcome(exchange: Exchange) -> Outcome:
            agent = exchange.request.headers.get(b"user-agent")
            if not agent:
                return _UNNAMED if named else None
            return _REFUSED if len(agent) > _LONGEST or is_denied(agent) else None

        return welcome

    @override
    def describe(self) -> str:
        words = [f"no client called {' or '.join(self.deny)}"] if self.deny else []
        if self.allow:
            words.append(f"but {' or '.join(self.allow)}")
        return ", ".join([*words, "no client without a name"] if self.named else words)

    @override
    def attacks(self) -> Iterable[Attack]:
        """Each denied word, shouted; and padding before it."""
        for word in self.deny:
            said = word.removeprefix("^").upper()
            yield Attack(name=f"client {said}", status=403, headers=(("user-agent", said),))
            yield Attack(name=f"padded client {said}", status=403, headers=(("user-agent", said + " " * 100_000),))
        if self.named:
            yield Attack(name="client without a name", status=403, headers=(("user-agent", ""),))


def _words(words: Iterable[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)


def _usable(word: Any) -> bool:
    return isinstance(word, str) and word.isascii() and bool(word.removeprefix("^").strip())


def _split(words: tuple[str, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the words looked for anywhere, and those looked for at the beginning."""
    lowered = [word.lower().encode("ascii") for word in words]
    anywhere = tuple(word for word in lowered if not word.startswith(b"^"))
    return anywhere, tuple(word[1:] for word in lowered if word.startswith(b"^"))


_REFUSED: Final = CLIENT_NOT_ALLOWED()
_UNNAMED: Final = CLIENT_NOT_ALLOWED("Send a User-Agent header.")
