"""What tokens contribute to the identity service."""

from __future__ import annotations

from typing import Final

from routeguard.core.feature import Feature
from routeguard.tokens import store

feature: Final = Feature(name="tokens", tables=(store.signing_keys, store.refresh_families))
