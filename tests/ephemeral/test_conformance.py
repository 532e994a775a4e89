"""Memory and a real Valkey pass the same suite."""

from __future__ import annotations

import pytest

from tests.conformance.ephemeral import EphemeralConformance

pytestmark = pytest.mark.anyio


class TestStores(EphemeralConformance):
    """Each store, by the `store` fixture's parameters."""
