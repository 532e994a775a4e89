"""Every event that a feature records is declared, so that who listens to all of them misses none."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass

import pytest

import routeguard
from routeguard import Routeguard
from routeguard.builtin.features import defaults
from routeguard.core.events import Event
from routeguard.core.feature import Feature
from routeguard.core.setup import Setup
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.outbox import Outbox
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.models import UserCreated
from routeguard.identity.users.service import Users
from routeguard.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSeen(Event):
    device: str


def test_every_event_of_the_package_is_declared_by_a_feature() -> None:
    for module in pkgutil.walk_packages(routeguard.__path__, "routeguard."):
        if module.name.endswith(".models"):
            importlib.import_module(module.name)
    # By name: a dataclass with slots leaves the class behind that it was made from.
    found = {(kind.__module__, kind.__name__) for kind in Event.__subclasses__()}
    declared = {(event.__module__, event.__name__) for feature in defaults() for event in feature.events}
    assert {one for one in found if one[0].startswith("routeguard.")} == declared


@pytest.mark.anyio
@pytest.mark.parametrize("position", [0, -1])
async def test_a_feature_listens_to_the_events_of_all_features(database_url: str, position: int) -> None:
    """Wherever it stands in the list."""
    log: list[Event] = []

    def set_up(setup: Setup) -> None:
        async def audit(event: Event) -> None:
            log.append(event)

        setup.on(Event, audit, name="audit")

    features = [*defaults(), Feature(name="devices", events=(DeviceSeen,))]
    features.insert(position, Feature(name="audit_log", setup=set_up))
    guard = Routeguard(Settings(issuer="http://localhost:8000", database_url=database_url), features=features)
    database = guard.services.get(Database)
    await database.start()
    async with database.transaction() as tx:
        user = await guard.services.get(Users).create(tx, read_email("ada@example.com"))
        tx.record(DeviceSeen(device="dev_1"))
    assert user is not None
    await guard.services.get(Outbox).deliver_due()
    by_name = sorted(log, key=lambda event: type(event).__name__)
    assert by_name == [DeviceSeen(device="dev_1"), UserCreated(user_id=user.id)]
    await guard.close()
    await database.close()
