"""A stable order: what needs something comes after it, and all else stays as it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def in_order(names: Sequence[str], needs: Mapping[str, Iterable[str]]) -> tuple[list[str], list[str]]:
    """Return the names, each after those it needs, and a cycle of them (empty where there is none).

    Needs that are not among the names are ignored. The names of a cycle, and all that need one of them, are left out.
    """
    wanted = {name: {need for need in needs.get(name, ()) if need in names} for name in names}
    placed: dict[str, None] = {}
    while ready := next((name for name in names if name not in placed and wanted[name] <= placed.keys()), None):
        placed[ready] = None
    left = [name for name in names if name not in placed]
    return list(placed), _cycle(left, wanted)


def _cycle(left: Sequence[str], wanted: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the first cycle among names of which each needs another one, beginning and ending with the same."""
    if not left:
        return []
    path = [left[0]]
    while True:
        following = next(name for name in left if name in wanted[path[-1]])
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
