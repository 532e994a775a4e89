"""Events: facts that happened, recorded in the transaction that made them so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. Fields are plain data: they are stored as JSON and may be delivered twice."""


class Recorder(Protocol):
    """Where a service records what it did; delivery happens after the commit, or not at all."""

    def record(self, event: Event) -> None:
        """Store `event` in the same transaction."""
        ...
