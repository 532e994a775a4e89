"""Features that tests list by name in the setting `features`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from routeguard import Feature, Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    lasts: timedelta = timedelta(days=30)
    most: int = 5
    pepper: Secret | None = None


device: Feature[DeviceSettings] = Feature(name="device", settings=DeviceSettings, records=False)
no_feature = 5
