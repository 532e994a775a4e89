"""What API keys contribute to the identity service."""

from __future__ import annotations

from typing import Final

from routeguard.api_keys import store
from routeguard.core.feature import Feature

feature: Final = Feature(name="api_keys", tables=(store.api_keys,))
