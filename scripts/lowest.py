"""Make an environment with the lowest version of every dependency that pyproject.toml allows.

``python scripts/lowest.py FOLDER``; then ``FOLDER/bin/python -m pytest ...`` runs tests in it. What only tests use has
its pinned version, and so has httpx, which the test client of Starlette 1.0 needs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
BESIDE: Final = ("httpx>=0.28",)


def main(folder: str) -> None:
    """Resolve the package with its extras to the lowest versions, then add what tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    install = ["uv", "pip", "install", "--quiet", "--no-config", "--python", f"{folder}/bin/python"]
    subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
    subprocess.run([*install, "--resolution", "lowest-direct", "--editable", f"{ROOT}[all]"], check=True)
    subprocess.run([*install, *tools(project), *BESIDE], check=True)
    subprocess.run(["uv", "pip", "list", "--quiet", "--no-config", "--python", f"{folder}/bin/python"], check=True)


def tools(project: dict[str, Any]) -> list[str]:
    """Return what tests need and the package does not, each with its pinned version."""
    pins = dict(line.split("==") for line in project["tool"]["uv"]["constraint-dependencies"] if ";" not in line)
    extras = project["project"]["optional-dependencies"].values()
    own = {name_of(line) for lines in (project["project"]["dependencies"], *extras) for line in lines}
    needed = [name_of(line) for line in project["dependency-groups"]["test"]]
    return [f"{name}=={pins[name]}" for name in needed if name not in own and name in pins]


def name_of(requirement: str) -> str:
    """Return the name of a requirement, without extras, versions and markers."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    main(sys.argv[1])
