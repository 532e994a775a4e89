"""The example application of the attacks: one for each module of tests that has no world of its own."""

from __future__ import annotations

from tests.attacks.conftest import alice, bob, guest, world

__all__ = ["alice", "bob", "guest", "world"]
