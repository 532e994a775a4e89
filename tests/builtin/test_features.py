"""Slices are named by what is built in, and by nothing that assembles an application."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import routeguard
from routeguard.builtin.features import COMMANDS
from routeguard.cli.main import app

SOURCE = Path(routeguard.__file__).parent
SLICES = {path.parent.name for path in SOURCE.rglob("feature.py")} - {"core"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def named(file: str) -> set[str]:
    """Return the slices that a module imports, for annotations too, or names in a text that is not a docstring."""
    nodes = list(ast.walk(ast.parse((SOURCE / file).read_text("utf-8"))))
    docs = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, DOCUMENTED)}
    imported = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {part for name in imported if name.startswith("routeguard.") for part in name.split(".")[1:]}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return SLICES & (parts | (texts - docs))


def test_there_are_slices_and_the_list_of_built_in_ones_names_them() -> None:
    assert {"sessions", "api_keys", "oauth_server", "ui"} <= SLICES
    assert named("builtin/features.py") == SLICES


@pytest.mark.parametrize("file", ["app.py", "assembly.py", "core/feature.py", "core/features.py", "core/setup.py"])
def test_what_assembles_an_application_names_no_slice(file: str) -> None:
    assert named(file) == set()


def test_the_commands_no_feature_may_have_are_those_there_are() -> None:
    assert {name for name in app if not name.startswith("-")} - COMMANDS == set()
    assert set(app) >= COMMANDS
