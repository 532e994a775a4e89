"""What API keys contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.clock import SteadyClock
from routeguard.core.feature import Feature
from routeguard.foundation.db.database import Database
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.invalidation.service import Invalidations
from routeguard.identity.api_keys import store
from routeguard.identity.api_keys.checks import NARROWING, PROVIDED, SCHEMES
from routeguard.identity.api_keys.models import EVENTS, ApiKey, ApiKeySettings, KeyVerifier
from routeguard.identity.api_keys.problems import PROBLEMS
from routeguard.identity.api_keys.routes import routes
from routeguard.identity.api_keys.service import ApiKeys
from routeguard.identity.api_keys.uses import UseCounter
from routeguard.identity.api_keys.verifier import StoredKeys

if TYPE_CHECKING:
    from routeguard.core.setup import Setup
    from routeguard.identity.api_keys.text import Environment


def set_up(setup: Setup[ApiKeySettings]) -> None:
    """Wire API keys over the database and the invalidation feed of sessions."""
    services, settings = setup.services, setup.deployment
    database, clock, own = services.get(Database), services.get(SteadyClock), setup.settings
    feed = services.get(Invalidations)
    uses = UseCounter(database, clock=clock, flush=own.flush)
    services.add(UseCounter, uses, start=uses.start, close=uses.close)
    verifier = StoredKeys(
        database,
        services.get(Ephemeral),
        clock=clock,
        settings=own,
        sessions=settings.sessions,
        invalidations=feed,
        uses=uses,
    )
    services.add(KeyVerifier, verifier)
    setup.watch(ApiKey, verifier)
    setup.describe(*SCHEMES, narrowing=NARROWING)
    environment: Environment = "live" if settings.production else "test"
    keys = ApiKeys(database, clock=clock, settings=own, invalidations=feed, uses=uses, environment=environment)
    services.add(ApiKeys, keys)


feature: Final = Feature(
    name="api_keys",
    requires=("sessions",),
    provides=(PROVIDED,),
    settings=ApiKeySettings,
    setup=set_up,
    routes=routes,
    tables=(store.api_keys,),
    problems=PROBLEMS,
    events=EVENTS,
)
