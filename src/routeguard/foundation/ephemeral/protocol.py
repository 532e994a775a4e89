"""The contract of ephemeral storage. An implementation passes `tests/conformance/ephemeral.py` unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from routeguard.core.errors import ConfigError

Algorithm = Literal["gcra", "sliding"]

BUCKETS: Final = 10
"""Parts a sliding window is counted in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How often something may happen: `limit` units in `period` seconds.

    `gcra` is a token bucket that holds `burst` units and regains `limit` of them in a period (the generic cell rate
    algorithm, ITU-T I.371). `sliding` counts in buckets of a tenth of the period and never lets more than `limit`
    units through in any span as long as the period (attack RL-09); it has no burst of its own.
    Raises ConfigError for a quota that could never be met.
    """

    limit: int
    period: float
    burst: int
    algorithm: Algorithm = "gcra"
    interval: float = field(init=False, repr=False, compare=False, default=0.0)
    """Seconds in which one unit is regained."""
    room: float = field(init=False, repr=False, compare=False, default=0.0)
    """Seconds in which an empty bucket fills."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense. Raises ConfigError with every finding."""
        findings = [f"quota {name} must be at least 1" for name in ("limit", "burst") if getattr(self, name) < 1]
        if self.period <= 0:
            findings.append("quota period must be positive")
        if self.algorithm not in {"gcra", "sliding"}:
            findings.append(f"algorithm {self.algorithm!r} is neither 'gcra' nor 'sliding'")
        if self.algorithm == "sliding" and self.burst != self.limit:
            findings.append("a sliding window has no burst")
        if findings:
            raise ConfigError(findings)
        object.__setattr__(self, "interval", self.period / self.limit)
        object.__setattr__(self, "room", self.period / self.limit * self.burst)


class Attempt(NamedTuple):
    """A wish to spend `cost` units of `quota`, counted under `key`. A negative cost gives units of a bucket back."""

    key: str
    quota: Quota
    cost: int = 1


class Hit(NamedTuple):
    """What became of an attempt.

    `remaining` is how many units may be spent at once now. `reset` is in seconds: until `remaining` grows when the
    attempt was allowed (0 when it is full), until this very attempt would pass when it was not.
    """

    allowed: bool
    remaining: int
    reset: float


class Ephemeral(Protocol):
    """Keys that die by themselves.

    Every key has a life (`ttl` in seconds, above zero), so whatever is written here goes away without anybody
    cleaning up (attack RL-16). Keys are text; those of one subject carry it as hash tag (`hash_tag`), so that a
    cluster keeps them together. Every operation is atomic towards every other, across processes where the store is
    shared. A store that does not answer in time raises `Unavailable`, promptly, and never stops the event loop.
    """

    async def start(self) -> None:
        """Get ready. A store that is away now is no error: it is asked again in the background."""
        ...

    async def close(self) -> None:
        """Give up the connection. Safe to call twice."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return the value of a live key, or None."""
        ...

    async def get_all(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return the values of several keys, in order; on a cluster those of one hash tag are of one moment."""
        ...

    async def put(self, key: str, value: bytes, *, ttl: float, expected: bytes | None = None) -> bool:
        """Set a key. With `expected`, only while the key still holds that value. Returns whether it was set."""
        ...

    async def delete(self, key: str, *, expected: bytes | None = None) -> bool:
        """Remove a key; with `expected`, only while it holds that value. Returns whether it was removed.

        Raises no error for a key that is not there. Not for counters.
        """
        ...

    async def claim(self, key: str, value: bytes, *, ttl: float) -> bytes | None:
        """Set a key unless it is there. Returns None to the one caller who set it, the present value to the rest."""
        ...

    async def hit(self, attempts: Sequence[Attempt]) -> Sequence[Hit]:
        """Spend units of several quotas at once: all of them, or none when one refuses (denied ones do not count).

        On a cluster the all-or-none holds among keys with the same hash tag.
        """
        ...


def hash_tag(subject: str) -> str:
    """Return the part of a key that decides its slot in a cluster: ``{subject}`` (Redis Cluster specification).

    Two subjects never have one tag, whatever a caller chose: braces are escaped, and so is what escapes them. An empty
    tag would be none, so it is written as what no subject is.
    """
    return f"{{{escape_tag(subject) or '%'}}}"


def escape_tag(text: str) -> str:
    """Return `text` without braces, each text its own."""
    if "%" in text or "{" in text or "}" in text:
        return text.replace("%", "%25").replace("}", "%7D").replace("{", "%7B")
    return text
