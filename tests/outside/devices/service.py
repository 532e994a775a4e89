"""Devices are added, found, and looked at when somebody signs in."""

from __future__ import annotations

from typing import Any, Final

from routeguard import Problem, ProblemType
from routeguard.records import Database, Transaction
from tests.outside.devices import store
from tests.outside.devices.models import DeviceAdded, DeviceSettings

UNKNOWN_DEVICE: Final = ProblemType("unknown-device", 403, "Unknown device", "This device may not be used.")


class Devices:
    def __init__(self, database: Database, settings: DeviceSettings) -> None:
        self._database = database
        self._settings = settings
        self.heard: list[str] = []

    async def add(self, device_id: str, user_id: str) -> None:
        async with self._database.transaction() as tx:
            await store.insert(tx, device_id, user_id)
            tx.record(DeviceAdded(device_id=device_id))

    async def owner_of(self, device_id: str) -> str | None:
        async with self._database.read() as tx:
            return await store.owner_of(tx, device_id)

    async def count(self) -> int:
        async with self._database.read() as tx:
            return await store.count(tx)

    async def on_added(self, event: DeviceAdded) -> None:
        self.heard.append(event.device_id)

    async def ready(self) -> None:
        await self.count()

    async def step(self, tx: Transaction, attempt: Any) -> Problem | None:
        """Refuse a sign-in on a device that is banned."""
        banned = attempt.exchange.request.header("x-device") in self._settings.banned
        return UNKNOWN_DEVICE(debug="a banned device") if banned else None
