"""What becomes of a command whose output has no reader, or nowhere to go."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.servers import ROUTEGUARD, environment

BROKEN = {"ROUTEGUARD_NOPE": "1"}


def ended(directory: Path, *arguments: str, stdout: int | None, stderr: int, **values: str) -> tuple[int, str]:
    done = subprocess.run(
        [ROUTEGUARD, *arguments],
        cwd=directory,
        env=environment(**values),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        timeout=60,
        check=False,
    )
    return done.returncode, (done.stderr or b"").decode()


@pytest.fixture
def closed_pipe():
    """Return the writing end of a pipe that nobody reads, as `| head` leaves it."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize(
    ("arguments", "values", "code"),
    [
        (("config", "show"), {}, 0),
        (("config", "show", "--format", "json"), {}, 0),
        (("config", "show"), {"PYTHONUNBUFFERED": "1"}, 0),
        (("config", "show"), BROKEN, 1),
        (("migrate",), {}, 0),
        (("--help",), {}, 0),
        (("nonsense",), {}, 2),
    ],
)
def test_a_reader_that_goes_away_changes_nothing(
    tmp_path: Path, closed_pipe: int, arguments: tuple[str, ...], values: dict[str, str], code: int
) -> None:
    found, said = ended(tmp_path, *arguments, stdout=closed_pipe, stderr=subprocess.PIPE, **values)
    assert found == code
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert "BrokenPipe" not in said


def test_complaints_without_a_reader_change_nothing_either(tmp_path: Path, closed_pipe: int) -> None:
    found, _ = ended(tmp_path, "config", "show", stdout=closed_pipe, stderr=closed_pipe, **BROKEN)
    assert found == 1


def test_a_stream_that_is_closed_is_none(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{ROUTEGUARD} config show >&-"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_a_full_disk_is_said_and_is_no_success(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        found, said = ended(tmp_path, "config", "show", stdout=full.fileno(), stderr=subprocess.PIPE)
    assert found == 2
    assert said == "The output could not be written: No space left on device\n"


def test_letters_the_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    values = {"PYTHONIOENCODING": "ascii", "ROUTEGUARD_MAIL_SENDER": "Zo\u00eb <zoe@example.com>"}
    done = subprocess.run(
        [ROUTEGUARD, "config", "show"],
        cwd=tmp_path,
        env=environment(**values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Zo\\xeb" in done.stdout
