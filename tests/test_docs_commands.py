"""What a newcomer pastes from README and tutorial into a terminal works as it stands, in order, in an empty folder.

`main.py` holds the page's blocks of Python. Each command succeeds, or prints what the page shows; `...` on the page is
anything. The server is started where the page starts it, on a free port, which takes the place of 8000.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.backends import free_port
from tests.servers import environment
from tests.steady import PATIENCE, until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/tutorial/first-guarded-app.md")
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = ("pip install ", "uv run ")
"""Commands that need a registry, or a clone."""
SERVER = "uvicorn main:app"
TOOLS = Path(sys.executable).parent


def blocks(page: str, kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall((ROOT / page).read_text("utf-8")) if found == kind]


def commands(page: str) -> list[tuple[str, str]]:
    """Return each command of a page, and the output the page shows for it."""
    found: list[tuple[str, str]] = []
    for line in "".join(blocks(page, "console")).splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), ""))
        else:
            command, shown = found.pop()
            found.append((command, shown + line))
    return [(command, shown) for command, shown in found if not command.startswith(ELSEWHERE)]


def shell(folder: Path, lines: list[tuple[str, str]], environ: dict[str, str]) -> list[tuple[int, str]]:
    """Run commands in one shell, as in one terminal; return each one's exit code and what it printed."""
    script = ["set -o pipefail", 'curl() { command curl --silent --show-error --fail-with-body "$@"; }']
    for number, (command, _) in enumerate(lines):
        script.append(f"{{ {command}\n}} > out.{number} 2> err.{number}; echo $? > code.{number}")
    subprocess.run(["bash", "-c", "\n".join(script)], cwd=folder, env=environ, timeout=2 * PATIENCE, check=True)
    return [
        (int((folder / f"code.{number}").read_text()), (folder / f"out.{number}").read_text())
        for number in range(len(lines))
    ]


def check(folder: Path, lines: list[tuple[str, str]], environ: dict[str, str]) -> None:
    for number, (code, output) in enumerate(shell(folder, lines, environ)):
        command, shown = lines[number]
        if shown:
            pattern = re.escape(shown).replace(re.escape(", ..."), ".*").replace(re.escape("..."), ".*")
            assert re.match(pattern, output), (command, output)
        else:
            assert code == 0, (command, output, (folder / f"err.{number}").read_text())


@contextlib.contextmanager
def served(folder: Path, port: int, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "server.log").open("w") as log:
        command = [*shlex.split(SERVER), "--port", str(port)]
        command[0] = str(TOOLS / command[0])
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def answers(process: subprocess.Popen[bytes], url: str) -> bool:
    assert process.poll() is None, "the server ended"
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def curl_is_new_enough() -> bool:
    curl = shutil.which("curl")
    if curl is None or shutil.which("bash") is None:
        return False
    said = subprocess.run([curl, "--help", "all"], capture_output=True, text=True, check=False).stdout
    return "--json" in said


@pytest.mark.skipif(not curl_is_new_enough(), reason="needs bash, and curl 7.82 or newer (--json)")
@pytest.mark.parametrize("page", PAGES)
async def test_the_commands_of_a_page_work_in_order(page: str, tmp_path: Path) -> None:
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    environ = environment(ROUTEGUARD_ISSUER=here, PATH=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "main.py").write_text("\n\n".join(blocks(page, "python")), "utf-8")
    written = [(command.replace("http://127.0.0.1:8000", here), shown) for command, shown in commands(page)]
    place = [command for command, _ in written].index(SERVER)
    check(tmp_path, written[:place], environ)
    with served(tmp_path, port, environ) as server:
        await until(lambda: answers(server, here))
        check(tmp_path, written[place + 1 :], environ)
