"""What the guard concluded about one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routeguard.core.problem import Problem


@dataclass(frozen=True, slots=True)
class Allow:
    """Every check passed (or the route is public): the handler may run."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """A check said no."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer in place of the handler: an idempotent replay, a CORS preflight."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


Decision = Allow | Refuse | Reply

ALLOW = Allow()
