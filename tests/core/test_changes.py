from __future__ import annotations

from typing import Any

import pytest

from routeguard.core.changes import Changes

pytestmark = pytest.mark.anyio


class Renamed:
    pass


class Moved(Renamed):
    pass


async def test_hooks_run_in_order_for_changes_of_exactly_their_class() -> None:
    heard: list[Any] = []

    async def first(tx: Any, change: Renamed) -> None:
        heard.append(("first", tx, change))

    async def second(tx: Any, change: Renamed) -> None:
        heard.append(("second", tx, change))

    changes, change = Changes(), Renamed()
    changes.add(Renamed, first)
    changes.add(Renamed, second)
    await changes.run("tx", change)
    await changes.run("tx", Moved())
    assert heard == [("first", "tx", change), ("second", "tx", change)]


async def test_a_hook_for_changes_that_nobody_makes_is_a_finding() -> None:
    async def hook(tx: Any, change: Any) -> None: ...

    changes = Changes()
    changes.add(Renamed, hook)
    changes.add(Moved, hook)
    assert changes.unknown([Renamed]) == [
        "a hook waits for changes of the class Moved, which no feature in features makes"
    ]
    assert changes.unknown([Moved, Renamed]) == []
