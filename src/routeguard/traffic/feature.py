"""What the layers contribute to the identity service: the token for clients that are no browsers of the last years."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.feature import Feature
from routeguard.traffic.csrf_routes import csrf_routes
from routeguard.traffic.models import TrafficSettings
from routeguard.traffic.problems import PROBLEMS

if TYPE_CHECKING:
    from routeguard.core.services import Services


def register(services: Services, settings: Any) -> None:
    """Say which limits the other features' routes have."""
    services.add(TrafficSettings, settings.traffic)


feature: Final = Feature(name="traffic", register=register, routes=csrf_routes, problems=PROBLEMS)
