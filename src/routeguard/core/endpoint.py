"""One HTTP endpoint of a feature: what it answers, where, and to whom, said together: none is without a policy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routeguard.core.policy import Policy


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``Endpoint("GET", "/auth/devices", list_devices, session())``: a route without a framework.

    `handler` takes Starlette's `Request` and returns its `Response`, a page as well as data. GET answers HEAD too.
    """

    method: str
    path: str
    handler: Callable[[Any], Awaitable[Any]]
    policy: Policy
