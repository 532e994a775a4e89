"""What `config show` and the access log of `dev` leave out."""

from __future__ import annotations

import logging
import logging.config
from pathlib import Path

import pytest

from routeguard.cli.config import redact, show
from routeguard.cli.server import logging_config

COVERS = ("cli/config", "core/redaction")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://app:CANARY@db:5432/app", "postgresql://(hidden)@db:5432/app"),
        ("redis://CANARY@cache", "redis://(hidden)@cache"),
        ("redis://:CANARY@[::1]:6379/0", "redis://(hidden)@[::1]:6379/0"),
        (
            "postgresql://db/app?password=CANARY&sslmode=CANARY",
            "postgresql://db/app?password=(hidden)&sslmode=(hidden)",
        ),
        ("postgresql://db/app?PGPASS=CANARY;x=CANARY", "postgresql://db/app?(hidden)&x=(hidden)"),
        ("postgresql://db/app?CANARY", "postgresql://db/app?(hidden)"),
        ("postgresql://db/app#CANARY", "postgresql://db/app#(hidden)"),
        ("redis://u:CANARY/b@h", "redis://(hidden)"),
        ("redis://u:1/CANARY@h", "redis://(hidden)"),
        ("redis://u:CANARY?b@h", "redis://(hidden)"),
        ("redis://u:CANARY#b@h", "redis://(hidden)"),
        ("redis://u:CANARY\\b@h", "redis://(hidden)"),
        ("redis://u:[CANARY@h", "redis://(hidden)"),
        ("redis://u:CAN@ARY@h", "redis://(hidden)@h"),
        ("redis://h:CANARY/0", "redis://(hidden)"),
        ("redis://u:CAN\nARY@h", "redis://(hidden)"),
        ("smtp:u:CANARY@h", "(hidden)"),
        ("sqlite:///a@b/x.db", "sqlite:///a@b/x.db"),
        ("smtps://mail.example.com:465", "smtps://mail.example.com:465"),
        ("https://id.example.com", "https://id.example.com"),
        ("Ada <ada@example.com>", "Ada <ada@example.com>"),
    ],
)
def test_an_address_shows_no_secret(given: str, shown: str) -> None:
    """OPS-22"""
    assert redact(given) == shown


def test_the_access_log_holds_no_query(capsys: pytest.CaptureFixture[str]) -> None:
    """OPS-22"""
    before = logging.getLogger("uvicorn.access").handlers[:]
    config = logging_config()
    config["loggers"] = {"uvicorn.access": config["loggers"]["uvicorn.access"]}
    config["handlers"]["line"]["stream"] = "ext://sys.stdout"
    logging.config.dictConfig(config)
    logger = logging.getLogger("uvicorn.access")
    try:
        logger.info('%s - "%s %s HTTP/%s" %d', "1.2.3.4:5", "GET", "/auth/password/reset?token=CANARY", "1.1", 200)
    finally:
        logger.handlers, logger.filters, logger.propagate = before, [], True
    assert '"GET /auth/password/reset HTTP/1.1" 200' in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["host=db user=app password=CANARY", "postgres//app:CANARY", "rediss:CANARY", "host=db password=CANARY://x"]
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "EPHEMERAL_URL", "MAIL_URL"])
def test_an_address_that_is_no_url_is_not_shown(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"ROUTEGUARD_{name}", text)
    assert show() == 1
    output = capsys.readouterr()
    assert "CANARY" not in output.out + output.err
