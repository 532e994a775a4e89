"""The public names and their shapes, held against tests/public_api.txt, so that no change of them goes unseen.

A change that is meant: ``uv run python -m tests.test_public_api`` writes the file anew, and a change fragment tells it.
"""

from __future__ import annotations

import ast
import inspect
from enum import Enum
from pathlib import Path

import routeguard
import routeguard.records
import routeguard.testing

SNAPSHOT = Path(__file__).parent / "public_api.txt"
# Others script against these (see docs/reference); a rename breaks them.
STABLE = {
    "Routeguard",
    "Settings",
    "UserSession",
    "client_address",
    "load_json",
    "match_user",
    "parse_cookies",
    "parse_rate",
    "public",
    "safe_redirect",
}


def test_the_public_api_is_what_the_snapshot_says():
    assert "\n".join(describe_all()) + "\n" == SNAPSHOT.read_text("utf-8"), __doc__


def test_stable_names_are_there():
    assert {name for name in STABLE if not hasattr(routeguard, name)} == set()


def describe_all():
    for package, prefix in ((routeguard, ""), (routeguard.records, "records."), (routeguard.testing, "testing.")):
        tree = ast.parse(Path(package.__file__).read_text("utf-8"))
        names = [node.asname for node in ast.walk(tree) if isinstance(node, ast.alias) and node.asname]
        for name in sorted(names):
            value, shown = getattr(package, name), prefix + name
            yield from describe(shown, value) if inspect.isclass(value) else [f"{shown}{shape(value)}"]


def describe(name, kind):
    if issubclass(kind, Enum):
        yield f"enum {name}({', '.join(kind.__members__)})"
        return
    yield f"class {name}{shape(kind)}"
    for member, value in sorted(members(kind).items()):
        if member.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"    {member}: property"
        elif callable(value) or isinstance(value, classmethod | staticmethod):
            yield f"    {member}{shape(getattr(kind, member))}"


def members(kind):
    """Return what a class has of its own, and of bases of ours that are not public themselves."""
    public = {value for value in vars(routeguard).values() if inspect.isclass(value)}
    parts = [
        one for one in kind.__mro__ if one is kind or (one.__module__.startswith("routeguard.") and one not in public)
    ]
    return {name: value for one in reversed(parts) for name, value in vars(one).items()}


def shape(value):
    """Return parameters by name and kind; annotations are for the type checkers to compare."""
    if not callable(value):
        return f": {type(value).__name__}"
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "()"
    return f"({', '.join(one(parameter) for parameter in parameters)})"


def one(parameter):
    star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    named = "named " if parameter.kind is parameter.KEYWORD_ONLY else ""
    return f"{named}{star}{parameter.name}{'' if parameter.default is parameter.empty else '=...'}"


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(describe_all()) + "\n", "utf-8")
