"""An attack that the source or a test cites is in docs/reference/attacks.md, with the tests that hold its answer."""

from __future__ import annotations

import re

from scripts.attacks import CATALOGUE, PLANNED, ROOT, ROW, ids_in, kinds_of, with_tests

TEXT = CATALOGUE.read_text("utf-8")
ROWS = {match["id"]: match for match in ROW.finditer(TEXT)}
KINDS = kinds_of(TEXT)


def test_every_row_is_read_and_every_id_stands_once():
    lines = re.findall(r"(?m)^\| [A-Z]{2,4}-\d+ \|", TEXT)
    assert len(lines) == len(ROWS) >= 320


def test_an_id_that_is_cited_has_a_row():
    cited = {name: paths for folder in ("src", "tests", "examples") for name, paths in ids_in(folder, KINDS).items()}
    assert {name: paths for name, paths in cited.items() if name not in ROWS} == {}


def test_an_id_that_the_source_cites_has_a_test():
    assert sorted(set(ids_in("src", KINDS)) - set(ids_in("tests", KINDS))) == []


def test_every_row_has_a_test_or_names_the_part_it_waits_for():
    tested = ids_in("tests", KINDS)
    assert [name for name, row in ROWS.items() if (name in tested) == row["tests"].startswith(PLANNED)] == []


def test_the_listed_tests_are_the_ones_that_name_the_attack():
    assert with_tests(TEXT) == TEXT, "run `uv run python scripts/attacks.py`"


def test_ids_in_the_documentation_have_a_row():
    pattern = re.compile(rf"\b(?:{'|'.join(sorted(KINDS))})-\d{{2}}\b")
    cited = {path.name: set(pattern.findall(path.read_text("utf-8"))) for path in (ROOT / "docs").rglob("*.md")}
    assert {name: found - set(ROWS) for name, found in cited.items() if found - set(ROWS)} == {}
