"""Events: facts that happened, recorded in the transaction that made them so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. Fields are plain data: they are stored as JSON and may be delivered twice."""
