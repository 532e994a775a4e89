"""Write the column of tests in docs/reference/attacks.md: the test files that name each attack by its id.

Run as ``uv run python scripts/attacks.py``. The other columns are written by hand.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
CATALOGUE: Final = ROOT / "docs" / "reference" / "attacks.md"
ROW: Final = re.compile(r"\| (?P<id>[A-Z]{2,4}-\d{2}) \| (?P<attack>.+) \| (?P<answer>.+) \| (?P<tests>.+) \|")
PLANNED: Final = "planned: "


def ids_in(folder: str, kinds: frozenset[str]) -> dict[str, list[Path]]:
    """Return the files below `folder` that name each attack, for ids of the catalogue's `kinds` (JWT, SES, ...)."""
    found: dict[str, list[Path]] = defaultdict(list)
    pattern = re.compile(rf"\b(?:{'|'.join(sorted(kinds))})-\d{{2}}\b")
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in sorted(set(pattern.findall(path.read_text("utf-8")))):
            found[name].append(path.relative_to(ROOT))
    return found


def kinds_of(catalogue: str) -> frozenset[str]:
    """Return the letters before the numbers: one kind a section."""
    return frozenset(match["id"].partition("-")[0] for match in ROW.finditer(catalogue))


def with_tests(catalogue: str) -> str:
    """Return the catalogue with its last column written anew; a row without a test keeps what it plans."""
    tests = ids_in("tests", kinds_of(catalogue))

    def row(match: re.Match[str]) -> str:
        links = ", ".join(f"[{path.parent.name}/{path.stem}](../../{path.as_posix()})" for path in tests[match["id"]])
        return f"| {match['id']} | {match['attack']} | {match['answer']} | {links or match['tests']} |"

    return ROW.sub(row, catalogue)


if __name__ == "__main__":
    CATALOGUE.write_text(with_tests(CATALOGUE.read_text("utf-8")), "utf-8")
    print(f"wrote {CATALOGUE.relative_to(ROOT)}")
