"""What devices contribute."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from routeguard import Feature, Policy, Provided, SecurityScheme, Setup
from routeguard.records import Database
from tests.outside.devices.checks import Device, DeviceRequired
from tests.outside.devices.models import DeviceAdded, DeviceSettings
from tests.outside.devices.routes import routes
from tests.outside.devices.service import UNKNOWN_DEVICE, Devices
from tests.outside.devices.store import table


def set_up(setup: Setup[DeviceSettings]) -> None:
    """Register `Devices`, and plug it in wherever it has a say."""
    database = setup.services.get(Database)
    devices = setup.services.add(Devices, Devices(database, setup.settings))
    setup.on(DeviceAdded, devices.on_added)
    setup.sign_in_step(devices.step, after=("emails",))
    setup.ready(devices.ready)
    setup.describe(
        SecurityScheme(
            name="device",
            description={"type": "apiKey", "in": "header", "name": "X-Device"},
            required_by=(DeviceRequired,),
        )
    )


feature: Final[Feature[DeviceSettings]] = Feature(
    name="devices",
    requires=("sessions",),
    settings=DeviceSettings,
    setup=set_up,
    routes=routes,
    tables=(table,),
    migrations=Path(__file__).parent / "migrations",
    problems=(UNKNOWN_DEVICE,),
    events=(DeviceAdded,),
    provides=(Provided(Device, by=Policy((DeviceRequired(),))),),
    commands={"devices": "tests.outside.devices.command:count"},
)
