"""The tests mirror the source: a module has a test of its name, or a test says that it covers it.

`identity/sessions/match.py` is tested by `tests/sessions/test_match.py`. A test of a behaviour has
another name, and lists the modules it covers in `COVERS`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import routeguard

SOURCE = Path(routeguard.__file__).parent
TESTS = Path(__file__).parent
GROUPS = {"protection", "identity", "foundation"}
SHARE = 0.9


def modules() -> dict[str, Path]:
    """Return every module of the source, and where a test of its name would be."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        module = path.relative_to(SOURCE).with_suffix("")
        if path.name == "__init__.py" or "migrations" in module.parts:
            continue
        folders = module.parts[1:-1] if module.parts[0] in GROUPS else module.parts[:-1]
        found[str(module)] = TESTS.joinpath(*folders, f"test_{module.name}.py")
    return found


def covered() -> dict[str, list[str]]:
    """Return the modules that tests say they cover, with those tests."""
    found: dict[str, list[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COVERS":
                for module in ast.literal_eval(node.value):
                    found.setdefault(module, []).append(str(path.relative_to(TESTS)))
    return found


def test_what_tests_cover_is_there():
    assert sorted(covered().keys() - modules().keys()) == []


def test_nine_of_ten_modules_have_a_test():
    claimed = covered()
    missing = [module for module, test in modules().items() if not test.exists() and module not in claimed]
    assert len(missing) <= (1 - SHARE) * len(modules()), f"give these a test, or a line in COVERS: {sorted(missing)}"
