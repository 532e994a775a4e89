"""What a newcomer copies from README, tutorial and reference passes mypy --strict as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "docs/tutorial/first-guarded-app.md",
    "docs/reference/policies.md",
    "docs/explanation/write-a-check.md",
    "docs/explanation/write-a-feature.md",
)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(300)
def test_the_code_of_the_pages_has_good_types(tmp_path: Path) -> None:
    modules = []
    for page in PAGES:
        module = tmp_path / f"page_{Path(page).stem.lower().replace('-', '_')}.py"
        module.write_text("\n\n".join(BLOCK.findall((ROOT / page).read_text("utf-8"))), "utf-8")
        modules.append(module.name)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "docs"), *modules],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
