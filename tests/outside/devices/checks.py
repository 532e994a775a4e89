"""The policy that asks for a known device."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from routeguard import Attack, Check, Exchange, Outcome, Policy, Services, Stage
from tests.outside.devices.service import UNKNOWN_DEVICE, Devices


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the caller."""

    id: str
    user_id: str

    @property
    def principal_id(self) -> str:
        return self.user_id


@dataclass(frozen=True, slots=True)
class DeviceRequired(Check):
    """A device that is known."""

    stage = Stage.IDENTITY
    statuses: ClassVar[tuple[int, ...]] = (403, 503)

    def bind(self, services: Services) -> Callable[[Exchange], Awaitable[Outcome]]:
        devices = services.get(Devices)

        async def known(exchange: Exchange) -> Outcome:
            sent = exchange.request.header("x-device")
            owner = None if sent is None else await devices.owner_of(sent)
            if sent is None or owner is None:
                return UNKNOWN_DEVICE(debug="no device")
            exchange.principal = Device(sent, owner)
            return None

        return known

    def describe(self) -> str:
        return "a known device"

    def attacks(self) -> Iterable[Attack]:
        yield Attack(name="no device", status=403, anonymous=True)
        yield Attack(name="made-up device", status=403, anonymous=True, headers=(("x-device", "dev_made-up"),))


def device() -> Policy:
    """Ask for a known device: 403 `unknown-device` otherwise."""
    return Policy((DeviceRequired(),))
