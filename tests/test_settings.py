"""Settings: read from three places, checked at once, unsafe ones named."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from routeguard.core.errors import ConfigError
from routeguard.core.secret import Secret, new_token
from routeguard.sessions.models import SessionSettings
from routeguard.settings import Settings, keep_development_secret

STRONG = "kR2v_9qLm4tXw7Zs-Jd81hPbNfYcVuGa0oE5iT3"


def load(tmp_path: Path, toml: str = "", **environ: str) -> Settings:
    if toml:
        (tmp_path / "pyproject.toml").write_text(toml, encoding="utf-8")
    return Settings.load(environ=environ, directory=tmp_path)


def production(**changes: object) -> Settings:
    values: dict[str, object] = {
        "issuer": "https://id.example.com",
        "secret": Secret(STRONG),
        "database_url": "postgresql://db/routeguard",
        "ephemeral_url": "valkey://cache:6379",
        "mail": Settings.load(environ={"ROUTEGUARD_MAIL_URL": "smtps://mail.example.com"}, directory=Path("/")).mail,
    }
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


def test_arguments_beat_the_environment_which_beats_toml(tmp_path: Path) -> None:
    toml = '[tool.routeguard]\nbody_limit = "3 KB"\n[tool.routeguard.sessions]\nidle = "2d"\n'
    found = load(tmp_path, toml, ROUTEGUARD_SESSIONS_IDLE="3d")
    assert found.body_limit == 3072
    assert found.sessions.idle == timedelta(days=3)
    assert found.provenance == {"body_limit": "pyproject.toml", "sessions.idle": "environment ROUTEGUARD_SESSIONS_IDLE"}
    explicit = Settings.load(environ={"ROUTEGUARD_BODY_LIMIT": "9"}, directory=tmp_path, body_limit=7)
    assert (explicit.body_limit, explicit.provenance["body_limit"]) == (7, "argument")


def test_every_unreadable_value_is_named_and_none_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            tmp_path,
            ROUTEGUARD_SESSIONS_IDLE="hunter2",
            ROUTEGUARD_BODY_LIMIT="-1",
            ROUTEGUARD_DATABASE_POOL_SIZE="many",
            ROUTEGUARD_SECRTE="typo",
        )
    findings = "\n".join(caught.value.findings)
    for name in (
        "ROUTEGUARD_SESSIONS_IDLE",
        "ROUTEGUARD_BODY_LIMIT",
        "ROUTEGUARD_DATABASE_POOL_SIZE",
        "ROUTEGUARD_SECRTE",
    ):
        assert name in findings


@pytest.mark.parametrize("text", ["[tool.routeguard]\nnope = 1", "[tool.routeguard.sessions]\nidel = '1d'"])
def test_a_misspelt_name_in_toml_is_a_finding(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="is not a setting"):
        load(tmp_path, text)


def test_lists_are_written_with_commas(tmp_path: Path) -> None:
    found = load(tmp_path, ROUTEGUARD_TRUSTED_ORIGINS="https://a.example, https://b.example:8443")
    assert found.trusted_origins == ("https://a.example", "https://b.example:8443")
    assert not found.findings()


def test_a_sound_production_is_accepted() -> None:
    assert production().findings() == []
    assert production().secure_cookies


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"secret": None}, "secret is missing", id="OPS-11-missing"),
        pytest.param({"secret": Secret("short")}, "at least 32 bytes", id="JWT-30-short"),
        pytest.param({"secret": Secret("a" * 40)}, "too little variety", id="OPS-11-constant"),
        pytest.param({"secret": Secret("changeme-" + STRONG)}, "looks like a default", id="OPS-11-default"),
        pytest.param({"issuer": "http://id.example.com"}, "must be https", id="http"),
        pytest.param({"issuer": "https://id.example.com/path"}, "must be an origin", id="path"),
        pytest.param({"database_url": "sqlite://"}, "in memory", id="memory"),
        pytest.param({"mail": Settings().mail}, "console", id="mail"),
        pytest.param({"database_url": "postgresql://a:b@db/c", "ephemeral_url": "memory://"}, "ephemeral", id="two"),
        pytest.param({"database_url": "postgresql://a:PASSWORD@db/c"}, "placeholder", id="OPS-11-example"),
        pytest.param({"ephemeral_url": "valkey://USER:x@cache:6379"}, "placeholder", id="OPS-11-user"),
        pytest.param({"trusted_origins": ("*",)}, "trusted origin", id="CSRF-07-wildcard"),
        pytest.param({"trusted_origins": ("https://a.example/",)}, "trusted origin", id="CSRF-07-slash"),
        pytest.param({"trusted_origins": ("a.example",)}, "trusted origin", id="CSRF-06-host"),
        pytest.param({"trusted_proxies": ("10.0.0.1/8",)}, "trusted_proxies", id="host-bits"),
        pytest.param({"trusted_proxies": ("010.0.0.1",)}, "trusted_proxies", id="KEY-06-octal"),
        pytest.param({"trusted_proxies": ("0.0.0.0/0",)}, "every address", id="RL-01-all"),
        pytest.param({"trusted_proxies": ("::/0",)}, "every address", id="RL-01-all-of-ipv6"),
        pytest.param({"trusted_proxy_header": "X-Real-IP"}, "trusted_proxy_header", id="RL-01-one-value"),
        pytest.param({"trusted_proxy_header": ""}, "trusted_proxy_header", id="RL-01-no-header"),
        pytest.param({"environment": "staging"}, "environment must be", id="environment"),
    ],
)
def test_an_unsafe_production_is_refused(changes: dict[str, object], words: str) -> None:
    assert any(words in finding for finding in production(**changes).findings())


def test_the_header_of_the_proxies_is_one_of_two(tmp_path: Path) -> None:
    assert Settings().trusted_proxy_header == "X-Forwarded-For"
    for header in ("X-Forwarded-For", "Forwarded", "forwarded", "x-forwarded-for"):
        found = load(tmp_path, ROUTEGUARD_TRUSTED_PROXY_HEADER=header)
        assert found.trusted_proxy_header == header
        assert found.findings() == []


def test_one_process_may_do_with_its_memory() -> None:
    changes: dict[str, object] = {"database_url": "postgresql://a:b@db/c", "ephemeral_url": "memory://"}
    assert production(**changes, unsafe_memory_in_production=True).findings() == []
    assert production(**changes | {"ephemeral_url": "valkey://cache:6379"}).findings() == []


def test_a_feed_that_is_asked_too_seldom_is_refused() -> None:
    assert "sessions.poll" in " ".join(production(sessions=SessionSettings(poll=timedelta(seconds=5))).findings())


def test_all_findings_come_at_once() -> None:
    bare = Settings(issuer="http://id.example.com", environment="production")
    assert len(bare.findings()) >= 3


@pytest.mark.parametrize(
    ("issuer", "is_production", "secure"),
    [
        ("http://127.0.0.1:8000", False, False),
        ("http://localhost:9", False, False),
        ("http://[::1]:9", False, False),
        ("https://127.0.0.1", True, True),
        ("http://example.com", True, True),
        ("https://example.com", True, True),
    ],
)
def test_the_issuer_decides_environment_and_cookies(issuer: str, is_production: bool, secure: bool) -> None:
    found = Settings(issuer=issuer)
    assert (found.production, found.secure_cookies) == (is_production, secure)


def test_dev_trusts_both_names_of_this_machine() -> None:
    assert set(Settings(issuer="http://127.0.0.1:8123").origins) == {"http://127.0.0.1:8123", "http://localhost:8123"}
    assert production().origins == ("https://id.example.com",)


def test_the_development_secret_is_kept_and_private(tmp_path: Path) -> None:
    first = keep_development_secret(tmp_path)
    assert keep_development_secret(tmp_path) == first
    assert len(first) >= 32
    assert stat.S_IMODE((tmp_path / ".routeguard" / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"\n", b"a" * 31, b" " * 64])
def test_a_short_development_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    """JWT-30: with a key that is known anybody makes cookies."""
    (tmp_path / ".routeguard").mkdir()
    path = tmp_path / ".routeguard" / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"fewer than 32 bytes.*delete"):
        keep_development_secret(tmp_path)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o602, 0o666])
def test_a_development_secret_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    """OPS-11"""
    keep_development_secret(tmp_path)
    (tmp_path / ".routeguard" / "secret").chmod(mode)
    with pytest.raises(ConfigError, match=r"by others.*chmod"):
        keep_development_secret(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_a_development_secret_behind_a_link_is_refused(tmp_path: Path, there: bool) -> None:
    """OPS-11"""
    target = tmp_path / "elsewhere"
    if there:
        target.write_text(STRONG)
        target.chmod(0o600)
    (tmp_path / ".routeguard").mkdir()
    (tmp_path / ".routeguard" / "secret").symlink_to(target)
    with pytest.raises(ConfigError, match="is a link"):
        keep_development_secret(tmp_path)
    assert target.exists() is there


def test_a_crash_while_the_secret_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JWT-30"""

    def crash(_handle: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            keep_development_secret(tmp_path)
    assert list((tmp_path / ".routeguard").iterdir()) == []
    assert len(keep_development_secret(tmp_path)) >= 32


def test_many_who_make_the_secret_at_once_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: keep_development_secret(tmp_path), range(32)))
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / ".routeguard").iterdir()] == ["secret"]


def test_secrets_do_not_show(tmp_path: Path) -> None:
    canary = new_token()
    found = load(tmp_path, ROUTEGUARD_SECRET=canary, ROUTEGUARD_MAIL_URL=f"smtp://u:{canary}@mail.example.com")
    assert canary not in repr(found)
