"""Settings: read from three places, checked at once, unsafe ones named."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from routeguard import Routeguard, User
from routeguard.core.errors import ConfigError
from routeguard.core.feature import Feature
from routeguard.core.secret import Secret, new_token
from routeguard.core.setup import Setup
from routeguard.foundation.mail.models import MailSettings
from routeguard.identity.sessions.models import SessionSettings
from routeguard.settings import Settings, keep_development_secret

COVERS = ("settings/development_secret", "settings/findings", "settings/reader", "settings/tree")

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
        pytest.param({"issuer": "http://id.example.com", "environment": "production"}, "must be https", id="http"),
        pytest.param({"issuer": "https://id.example.com/path"}, "must be an origin", id="path"),
        pytest.param({"database_url": "sqlite://"}, "in memory", id="memory"),
        pytest.param({"database_url": "sqlite:///"}, "in memory", id="memory-of-three-slashes"),
        pytest.param({"database_url": "sqlite:///:memory:"}, "in memory", id="memory-by-name"),
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
        pytest.param({"trusted_proxies": ("0.0.0.0/1", "::1", "128.0.0.0/1")}, "every address", id="RL-01-two-halves"),
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


WRONG = {
    "ROUTEGUARD_ISSUER": "https://ID.example.com/auth",
    "ROUTEGUARD_SESSIONS_IDLE": "soon",
    "ROUTEGUARD_TOKENS_ACCESS": "2h",
    "ROUTEGUARD_BODY_LIMIT": "much",
    "ROUTEGUARD_TRAFFIC_SIGN_IN": "often",
    "ROUTEGUARD_TRUSTED_PROXIES": "10.0.0.1/8",
    "ROUTEGUARD_DATABASE_URL": "mysql://db/x",
    "ROUTEGUARD_EPHEMERAL_URL": "http://cache",
    "ROUTEGUARD_MAIL_URL": "mail.example.com",
    "ROUTEGUARD_TLS_KEY": "key.pem",
    "ROUTEGUARD_DATABASE_POOL_SIZE": "0",
    "ROUTEGUARD_SECRTE": "x",
    "ROUTEGUARD_ENVIRONMENT": "staging",
    "ROUTEGUARD_OLDER_SECRETS": "short",
}
NAMED = [
    "issuer 'https://ID",
    "ROUTEGUARD_SESSIONS_IDLE",
    "tokens.access",
    "ROUTEGUARD_BODY_LIMIT",
    "traffic.sign_in",
    "trusted_proxies",
    "database_url",
    "ephemeral_url",
    "mail.url",
    "tls.certificate",
    "database.pool_size",
    "ROUTEGUARD_SECRTE is not a setting; did you mean ROUTEGUARD_SECRET?",
    "environment must be",
    "older_secrets[0]",
]


def test_every_wrong_value_of_every_kind_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **WRONG)
    said = "\n".join(caught.value.findings)
    for name in NAMED:
        assert name in said
    assert len(caught.value.findings) >= len(WRONG)


def test_one_start_tells_what_all_sources_have_wrong(tmp_path: Path) -> None:
    toml = '[tool.routeguard]\nmisspelt = 1\n[tool.routeguard.sessions]\nabsolute = "-1d"\n'
    (tmp_path / "pyproject.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Settings.load(
            environ={"ROUTEGUARD_MAIL_URL": "smtp://"},
            directory=tmp_path,
            isuer="https://x.example",
            body_limit="huge",
            database_url=5,
        )
    said = "\n".join(caught.value.findings)
    for words in (
        "[tool.routeguard] misspelt is not a setting",
        "[tool.routeguard] sessions.absolute",
        "mail.url",
        "the argument isuer is not a setting; did you mean issuer?",
        "body_limit: size 'huge'",
        "database_url must be str, not int",
    ):
        assert words in said


def test_the_application_tells_settings_and_user_class_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Unfit(User):
        plan: str

    monkeypatch.chdir(tmp_path)
    for name, value in WRONG.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        Routeguard(user=Unfit)
    said = "\n".join(caught.value.findings)
    for name in [*NAMED, "Unfit.plan needs a default"]:
        assert name in said
    assert list(tmp_path.iterdir()) == []


def test_what_features_find_is_told_at_once() -> None:
    def failing(words: str) -> Feature:
        def set_up(_setup: Setup) -> None:
            raise ConfigError(words)

        return Feature(name=words, setup=set_up, records=False)

    def needy(setup: Setup) -> None:
        setup.services.get(Routeguard)

    features = [failing("first is wrong"), Feature(name="needy", setup=needy, records=False), failing("so is last")]
    with pytest.raises(ConfigError) as caught:
        Routeguard(Settings(secret=Secret(STRONG)), features=features, identify=lambda _: None)
    # The second only lacks what the first would have registered.
    assert caught.value.findings == ("first is wrong", "so is last")


def test_what_features_claim_twice_is_told_with_what_is_wrong_with_the_settings() -> None:
    one = Feature(name="one", requires=("absent",), records=False)
    settings = Settings(secret=Secret(STRONG), trusted_origins=("nonsense",))
    with pytest.raises(ConfigError) as caught:
        Routeguard(settings, features=[one, Feature(name="one", records=False)])
    found = "\n".join(caught.value.findings)
    assert "2 features are named one" in found
    assert "one needs absent, which is not in features" in found
    assert "trusted origin 'nonsense'" in found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"secret": STRONG}, "secret must be Secret, not str"),
        ({"trusted_origins": "https://a.example"}, "trusted_origins must be a list of str, not str"),
        ({"body_limit": True}, "body_limit must be int, not bool"),
        ({"body_limit": "1 MB"}, "body_limit must be int, not str"),
        ({"sessions": {"idle": "1d"}}, "sessions must be SessionSettings, not dict"),
        ({"mail": MailSettings(url=5)}, "mail.url must be str, not int"),  # type: ignore[arg-type]
        ({"issuer": None}, "issuer must be str, not NoneType"),
    ],
)
def test_an_argument_of_another_type_is_a_finding(arguments: dict[str, Any], words: str) -> None:
    found = Settings(**{"environment": "staging", **arguments}).findings()
    assert words in found
    assert "environment must be 'production', 'development' or 'test'" in found


def test_arguments_are_written_as_in_the_environment_too(tmp_path: Path) -> None:
    found = Settings.load(environ={}, directory=tmp_path, body_limit="2 KB", trusted_origins="https://a.example")
    assert (found.body_limit, found.trusted_origins) == (2048, ("https://a.example",))
    branch = SessionSettings(idle=timedelta(hours=1))
    given = Settings.load(environ={"ROUTEGUARD_SESSIONS_IDLE": "3d"}, directory=tmp_path, sessions=branch)
    assert given.sessions == branch


def test_what_could_not_be_read_contradicts_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, ROUTEGUARD_SESSIONS_IDLE="soon", ROUTEGUARD_SESSIONS_ABSOLUTE="1d")
    assert len(caught.value.findings) == 1


@pytest.mark.parametrize(
    ("variable", "suggestion"),
    [
        ("ROUTEGUARD_ISUER", "ROUTEGUARD_ISSUER"),
        ("ROUTEGUARD_DB_URL", "ROUTEGUARD_DATABASE_URL"),
        ("ROUTEGUARD_SESSION_IDLE", "ROUTEGUARD_SESSIONS_IDLE"),
        ("ROUTEGUARD_SESSIONS__IDLE", "ROUTEGUARD_SESSIONS_IDLE"),
        ("routeguard_secret", "ROUTEGUARD_SECRET"),
        ("Routeguard_Issuer", "ROUTEGUARD_ISSUER"),
    ],
)
def test_the_nearest_setting_is_suggested(tmp_path: Path, variable: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **{variable: "x"})
    assert caught.value.findings == (f"{variable} is not a setting; did you mean {suggestion}?",)


def test_a_name_like_no_other_has_no_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, ROUTEGUARD_XYLOPHONE="x")
    assert caught.value.findings == ("ROUTEGUARD_XYLOPHONE is not a setting",)


def test_variables_that_kubernetes_sets_for_a_service_of_our_name_are_no_settings(tmp_path: Path) -> None:
    ours = {
        "ROUTEGUARD_SERVICE_HOST": "10.0.0.7",
        "ROUTEGUARD_SERVICE_PORT": "80",
        "ROUTEGUARD_SERVICE_PORT_HTTP": "80",
        "ROUTEGUARD_PORT": "tcp://10.0.0.7:8000",
        "ROUTEGUARD_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "ROUTEGUARD_PORT_8000_TCP_PROTO": "tcp",
        "ROUTEGUARD_PORT_8000_TCP_ADDR": "10.0.0.7",
    }
    web = {name.replace("ROUTEGUARD", "ROUTEGUARD_WEB"): value for name, value in ours.items()}
    assert load(tmp_path, **ours, **web).issuer == Settings().issuer
    with pytest.raises(ConfigError, match="ROUTEGUARD_PORT is not a setting"):
        load(tmp_path, ROUTEGUARD_PORT="8000")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tool = 5", "is not a table"),
        ("[tool]\nrouteguard = 5", "is not a table"),
        ("[tool.routeguard", "cannot be read"),
        ("[tool.routeguard]\nissuer = 5", "[tool.routeguard] issuer: must be text"),
        ("[tool.routeguard]\nsessions = 5", "sessions is not a setting"),
        ("[tool.routeguard]\ntrusted_proxies = 5", "trusted_proxies: must be a list"),
        ("[tool.routeguard.database]\npool_size = 1.5", "must be a whole number"),
        ("[tool.routeguard.database]\npool_size = true", "must be a whole number"),
    ],
)
def test_toml_of_another_shape_is_a_finding(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert any(words in finding for finding in caught.value.findings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "http://[bad"}, "issuer"),
        ({"issuer": "http://127.0.0.1:99999"}, "issuer"),
        ({"issuer": "https://id.example.com:443"}, "issuer"),
        ({"issuer": "https://user@id.example.com"}, "issuer"),
        ({"issuer": " https://id.example.com"}, "issuer"),
        ({"issuer": ""}, "issuer"),
        ({"database_url": ""}, "database_url"),
        ({"database_url": "postgres://db/x"}, "database_url must begin"),
        ({"database_url": "postgresql+psycopg://db/x"}, "without a driver"),
        ({"database_url": "postgresql://u:p@ss:w%rd@db/x"}, "database_url cannot be read"),
        ({"database_url": "sqlite:///x.db?mode=ro"}, "without parameters"),
        ({"ephemeral_url": "redis://[bad"}, "ephemeral_url"),
        ({"ephemeral_url": "redis://cache:99999"}, "ephemeral_url"),
        ({"mail": MailSettings(url="smtp://mail:99999")}, "mail.url"),
        ({"mail": MailSettings(url="smtp://[bad")}, "mail.url"),
    ],
)
def test_what_nothing_can_run_on_is_a_finding_everywhere(changes: dict[str, Any], words: str) -> None:
    for environment in ("development", "production"):
        found = production(**changes, environment=environment).findings()
        assert found
        assert all(words in finding and "p@ss" not in finding for finding in found)


def test_a_former_secret_is_judged_as_the_present_one() -> None:
    """OPS-11: what a known secret signed is accepted as long as it is among the older ones."""
    assert production(older_secrets=(Secret("a" * 40),)).findings() == [
        "older_secrets[0] looks like a default or has too little variety"
    ]


@pytest.mark.parametrize(
    ("issuer", "is_production", "secure"),
    [
        ("http://127.0.0.1:8000", False, False),
        ("http://localhost:9", False, False),
        ("http://[::1]:9", False, False),
        ("http://127.8.0.1:9", False, False),
        ("http://app.localhost:9", False, False),
        ("http://localhost.example.com", True, True),
        ("http://notlocalhost", True, True),
        ("https://127.0.0.1", True, True),
        ("http://example.com", True, True),
        ("https://example.com", True, True),
    ],
)
def test_the_issuer_decides_environment_and_cookies(issuer: str, is_production: bool, secure: bool) -> None:
    found = Settings(issuer=issuer)
    assert (found.production, found.secure_cookies) == (is_production, secure)


@pytest.mark.parametrize(
    "issuer",
    [
        "http://192.168.1.5:8000",
        "http://10.0.0.7",
        "http://[fe80::1]:8000",
        "http://mac.local:8000",
        "http://myapp.test",
        "http://id.example.com",
        "http://my-machine:8000",
        "http://localhost.example.com",
    ],
)
def test_an_issuer_whose_cookies_browsers_drop_is_refused_with_the_ways_out(issuer: str) -> None:
    """CK-13: Secure cookies over http are dropped, and others would cross the network in clear."""
    (finding,) = Settings(issuer=issuer, environment="development").findings()
    for words in (issuer, "browsers would drop the session cookie", "https", "localhost"):
        assert words in finding
    # An application with a sign-in of its own has none of our cookies.
    Routeguard(Settings(issuer=issuer, environment="development"), identify=lambda _: None)
    with pytest.raises(ConfigError, match="drop the session cookie"):
        Routeguard(Settings(issuer=issuer, environment="development"))


@pytest.mark.parametrize(
    "issuer",
    ["http://app.localhost:8000", "http://127.0.0.2:8000", "https://192.168.1.5:8000", "https://localhost:8443"],
)
def test_an_issuer_whose_cookies_are_kept_is_accepted_in_development(issuer: str) -> None:
    assert Settings(issuer=issuer, environment="development").findings() == []


@pytest.mark.parametrize("issuer", ["http://0.0.0.0:8000", "https://0.0.0.0", "http://[::]:8000"])
@pytest.mark.parametrize("environment", ["development", "production"])
def test_an_address_to_listen_on_is_no_issuer(issuer: str, environment: str) -> None:
    found = Settings(issuer=issuer, environment=environment).findings()
    assert any("is an address to listen on" in finding for finding in found)


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


@pytest.mark.parametrize("issuer", ["http://192.168.1.5:8000", "http://myapp.test:8000"])
def test_another_device_is_told_of_its_cookie_alone(issuer: str) -> None:
    """Whoever tries a telephone has said nothing of production, and is not sent for a secret and a mail server."""
    (only,) = Settings(issuer=issuer).findings()
    assert "browsers would drop the session cookie" in only
    assert "docs/how-to/open-on-another-device.md" in only


@pytest.mark.parametrize(
    ("values", "only"),
    [
        ({"issuer": "id.example.com"}, "issuer 'id.example.com' must be an origin"),
        ({"issuer": "http://0.0.0.0:8000"}, "is an address to listen on"),
        ({"issuer": "http://0.0.0.0:8000", "environment": "development"}, "is an address to listen on"),
        ({"issuer": "https://id.example.com", "environment": "prod"}, "environment must be"),
        ({"issuer": "https://id.example.com", "environment": None}, "environment must be str"),
        ({"issuer": "http://10.0.0.7", "environment": "prod"}, "environment must be"),
        ({"database_url": "mysql://USER:PASSWORD@db/x", "environment": "development"}, "database_url must begin"),
    ],
)
def test_what_follows_from_a_finding_is_no_other(values: dict[str, Any], only: str) -> None:
    (finding,) = Settings(**values).findings()
    assert only in finding


def test_a_wrong_issuer_of_a_stated_production_hides_nothing_else() -> None:
    found = Settings(issuer="id.example.com", environment="production").findings()
    assert [one.split()[0] for one in found] == ["issuer", "secret", "mail.url"]


def test_a_value_that_is_wrong_already_is_not_judged_again() -> None:
    (finding,) = production(secret=Secret("changeme"), older_secrets=(Secret(STRONG),)).findings()
    assert "secret must have at least" in finding
    kept = production(secret=Secret("short"), older_secrets=(Secret("a" * 40),)).findings()
    assert [one.split()[0] for one in kept] == ["secret", "older_secrets[0]"], "another setting is judged still"


@pytest.mark.parametrize(
    ("toml", "name"),
    [
        ("environment = 5\nissuer = 'https://id.example.com'", "environment"),
        ("issuer = 5", "issuer"),
        (
            f"environment = 'production'\nissuer = 'https://id.example.com'\nsecret = '{STRONG}'\nmail.url = 5",
            "mail.url",
        ),
        ("sessions.trust = 'soon'\nsessions.poll = '1h'", "sessions.trust"),
    ],
)
def test_nothing_follows_from_a_value_that_cannot_be_read(tmp_path: Path, toml: str, name: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.routeguard]\n{toml}\n", encoding="utf-8")
    settings, findings = Settings.read(environ={}, directory=tmp_path)
    (finding,) = [*findings, *settings.findings()]
    assert name in finding
    assert settings.provenance[name] == "pyproject.toml, unreadable"


def test_loading_refuses_what_no_environment_can_use_and_leaves_the_rest_to_the_start(tmp_path: Path) -> None:
    for wrong in ({"ROUTEGUARD_ISSUER": "id.example.com"}, {"ROUTEGUARD_ENVIRONMENT": "prod"}):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, **wrong)
        assert len(caught.value.findings) == 1
    # Unsafe to serve with, and no obstacle to whoever reads a setting.
    assert load(tmp_path, ROUTEGUARD_ENVIRONMENT="production").findings()


@pytest.mark.parametrize(
    "setting", ["issuer", "trusted_origins", "cors_origins", "database_url", "ephemeral_url", "mail.url"]
)
@pytest.mark.parametrize("address", ["https://ada:CANARY@id.example.com/x", "ada:CANARY@id", "postgres//u:CANARY@db"])
def test_no_finding_repeats_a_password(setting: str, address: str) -> None:
    """OBS-03: a password stands in whatever a user takes for an address."""
    value: object = (address,) if setting.endswith("origins") else address
    changes: dict[str, object] = {"mail": MailSettings(url=address)} if setting == "mail.url" else {setting: value}
    found = replace(Settings(environment="production"), **changes).findings()  # type: ignore[arg-type]
    assert any(finding.startswith(setting.replace("_origins", "")) for finding in found)
    assert "CANARY" not in "\n".join(found)
