"""What the layers contribute to the identity service: the token for clients that are no browsers of the last years."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.feature import Feature
from routeguard.protection.traffic.csrf_routes import csrf_routes
from routeguard.protection.traffic.models import TrafficSettings
from routeguard.protection.traffic.problems import PROBLEMS

if TYPE_CHECKING:
    from routeguard.core.setup import Setup


def set_up(setup: Setup[TrafficSettings]) -> None:
    """Say which limits the other features' routes have."""
    setup.services.add(TrafficSettings, setup.settings)


feature: Final = Feature(name="traffic", settings=TrafficSettings, setup=set_up, routes=csrf_routes, problems=PROBLEMS)
