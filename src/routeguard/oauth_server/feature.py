"""What the identity service offers to other services."""

from __future__ import annotations

from typing import Final

from routeguard.core.feature import Feature
from routeguard.oauth_server import store

feature: Final = Feature(name="oauth_server", tables=(store.clients,))
