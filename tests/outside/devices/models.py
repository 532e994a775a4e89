"""Settings and events of devices."""

from __future__ import annotations

from dataclasses import dataclass

from routeguard import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """`ROUTEGUARD_DEVICES_...`"""

    most: int = 5
    banned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAdded(Event):
    """A device was added."""

    device_id: str
