"""A refusal without its page, an option without its docs and a link to nowhere do not merge."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import routeguard
from routeguard.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = Path(routeguard.__file__).parent
SETTINGS = (DOCS / "reference" / "settings.md").read_text("utf-8")
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md"])
SECTIONS = ("## What it means", "## What the caller should do", "## What the operator sees")


def problem_types():
    """Yield (code, status, title, file) for every `ProblemType(...)` written in the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "ProblemType":
                first = node.args[0]
                # `about:blank` is no type of ours: it says no more than its status (RFC 9457 section 4.2.1).
                if isinstance(first, ast.Constant) and first.value != "blank":
                    yield first.value, node.args[1].value, node.args[2].value, path.name


def settings_fields(kind, prefix=""):
    for field in dataclasses.fields(kind):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if dataclasses.is_dataclass(default):
            yield from settings_fields(type(default), f"{prefix}{field.name}.")
        elif field.name not in {"provenance", "own"}:
            yield f"{prefix}{field.name}", default


TYPES = list(problem_types())
FIELDS = dict(settings_fields(Settings))


def test_the_scan_finds_the_types_it_must():
    codes = {code for code, *_ in TYPES}
    assert {"authentication-required", "permission-denied", "guard-not-applied", "forgery-suspected"} <= codes
    assert len(codes) == len(TYPES), "two types share a code"


@pytest.mark.parametrize(("code", "status", "title"), [entry[:3] for entry in TYPES])
def test_a_problem_type_has_a_page_that_agrees_with_it(code, status, title):
    page = DOCS / "problems" / f"{code}.md"
    assert page.is_file(), f"docs/problems/{code}.md is missing"
    text = page.read_text("utf-8")
    assert text.startswith(f"# {title}\n"), "the heading is the problem's title"
    assert f"`{code}`" in text
    assert f"Status: {status}\n" in text
    assert [section for section in SECTIONS if section not in text] == []


def test_a_page_has_a_problem_type():
    pages = {path.stem for path in (DOCS / "problems").glob("*.md")} - {"index"}
    assert pages - {code for code, *_ in TYPES} == set()


def test_the_index_lists_every_problem_type():
    index = (DOCS / "problems" / "index.md").read_text("utf-8")
    assert [code for code, *_ in TYPES if f"({code}.md)" not in index] == []


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_is_documented_with_its_variable(name):
    variable = "ROUTEGUARD_" + name.replace(".", "_").upper()
    assert f"`{name}`" in SETTINGS, f"{name} is not in docs/reference/settings.md"
    assert f"`{variable}`" in SETTINGS


def test_every_documented_setting_exists():
    documented = set(re.findall(r"`(ROUTEGUARD_[A-Z_]+)`", SETTINGS))
    assert documented - {"ROUTEGUARD_" + name.replace(".", "_").upper() for name in FIELDS} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_a_decision_has_a_number_of_its_own():
    """Two that are written side by side take the same next one."""
    pages = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    assert [page.name for page in pages if not page.read_text("utf-8").startswith(f"# {page.name[:4]}. ")] == []
