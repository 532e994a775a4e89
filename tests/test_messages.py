"""What a newcomer gets wrong at first is said in words that name the way out."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from routeguard import ConfigError, Policy, Routeguard, Settings, rate_limit


@pytest.fixture
def guard(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Routeguard[Any]:
    monkeypatch.chdir(tmp_path)
    return Routeguard(Settings(database_url="sqlite://"))


def test_a_policy_that_was_not_called(guard: Routeguard[Any]) -> None:
    with pytest.raises(ConfigError, match=r"Routeguard\.session is a function, not a policy: did you mean session\("):
        Policy.of(guard.session)
    with pytest.raises(ConfigError, match="neither a policy nor a check"):
        Policy.of(7)


def test_fields_that_are_no_table(guard: Routeguard[Any]) -> None:
    wrong: Any = "admin"
    with pytest.raises(ConfigError, match=r"write session\(user=\{'role': 'admin'\}\)"):
        guard.session(user=wrong)


def test_a_rate_without_a_time() -> None:
    wrong: Any = 60
    with pytest.raises(ConfigError, match="write rate_limit\\('60/minute'\\)"):
        rate_limit(wrong)


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [
        ("sqlalchemy", "from routeguard import Routeguard; Routeguard()", "routeguard[identity]"),
        ("cyclopts", "import routeguard.cli.main", "routeguard[cli,identity]"),
    ],
)
def test_an_extra_that_is_missing_is_named(tmp_path: Any, module: str, code: str, words: str) -> None:
    lines = f"import sys; sys.modules[{module!r}] = None; {code}"
    ended = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert words in ended.stderr.splitlines()[-1]
