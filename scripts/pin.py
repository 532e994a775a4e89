"""Write the newest versions that fit together into pyproject.toml: ``uv run python scripts/pin.py``.

The list stands between two markers under `[tool.uv] constraint-dependencies`. It holds names, versions and markers of
platforms, and no address: whoever installs takes them from the registry he trusts.

    --keep           leave versions as they are in uv.lock and only add what is new
    --cooldown DAYS  take nothing that was published in the last days, so that others find a bad release first
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BEGIN: Final = "    # pinned: begin\n"
END: Final = "    # pinned: end\n"
_LINE: Final = re.compile(r"^(?P<pin>[A-Za-z0-9._-]+==[^\s;]+)(?:\s*;\s*(?P<marker>.+))?$")


def main() -> None:
    """Resolve in a folder of its own, then rewrite the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--cooldown", type=int, default=0, metavar="DAYS")
    options = parser.parse_args()
    path = ROOT / "pyproject.toml"
    before, rest = path.read_text("utf-8").split(BEGIN)
    _, after = rest.split(END)
    pins = resolve(f"{before}{BEGIN}{END}{after}", keep=options.keep, cooldown=options.cooldown)
    path.write_text(before + BEGIN + "".join(f"    {quoted(pin)},\n" for pin in pins) + END + after, "utf-8")
    print(f"{len(pins)} versions pinned in {path.name}; `uv sync` installs them")


def resolve(pyproject: str, *, keep: bool, cooldown: int) -> list[str]:
    """Return `name==version` (with a marker where versions differ by platform), sorted by name."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "pyproject.toml").write_text(pyproject, "utf-8")
        for name in ("README.md", "LICENSE"):
            shutil.copy(ROOT / name, place)
        if keep:
            shutil.copy(ROOT / "uv.lock", place)
        lock = ["uv", "lock", "--quiet", *([] if keep else ["--upgrade"])]
        if cooldown:
            lock += ["--exclude-newer", (datetime.now(UTC) - timedelta(days=cooldown)).isoformat()]
        subprocess.run(lock, cwd=place, check=True)
        export = ["uv", "export", "--quiet", "--frozen", "--all-groups", "--all-extras", "--no-hashes"]
        export += ["--no-emit-project", "--no-annotate", "--no-header"]
        lines = subprocess.run(export, cwd=place, check=True, capture_output=True, text=True).stdout.splitlines()
    return pins_of(lines)


def pins_of(lines: list[str]) -> list[str]:
    """Keep a marker only where a name has more than one version: a pin says which version, never whether."""
    found = [match for line in lines if (match := _LINE.match(line.strip()))]
    names = [match["pin"].partition("==")[0] for match in found]
    return sorted(
        f"{match['pin']} ; {match['marker']}" if names.count(name) > 1 and match["marker"] else match["pin"]
        for name, match in zip(names, found, strict=True)
    )


def quoted(text: str) -> str:
    """Return a TOML string; markers hold single quotes only."""
    return f'"{text}"'


if __name__ == "__main__":
    main()
