"""A port out of range is refused in one sentence wherever one is taken; the network would take it modulo 65536."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from routeguard import Settings, cors, hosts
from routeguard.cli.server import listen
from routeguard.client.aio import AsyncClient
from routeguard.client.sync import Client
from routeguard.core.errors import ConfigError
from routeguard.core.ports import PORT_RANGE, is_port, port_of
from routeguard.core.services import Services
from routeguard.foundation.ephemeral.connection import Address
from routeguard.foundation.ephemeral.factory import open_ephemeral
from routeguard.foundation.mail.models import MailSettings
from routeguard.foundation.mail.smtp import SmtpMailer
from routeguard.identity.oauth_server.models import ClientSettings
from routeguard.protection.traffic.origins import parse_origins
from routeguard.remote.models import RemoteSettings

NONE = ("0", "65536", "99999", "165536", "4294967376", "9" * 40)
"""Digits that are no port."""


def _findings(**changes: Any) -> None:
    raise ConfigError(Settings(**changes).findings())


TAKERS: dict[str, Callable[[str], Any]] = {
    "database_url": lambda port: _findings(database_url=f"postgresql://db:{port}/x"),
    "database_url, second host": lambda port: _findings(database_url=f"postgresql://one:5432,two:{port}/x"),
    "database_url, parameter": lambda port: _findings(database_url=f"postgresql://db/x?port={port}"),
    "ephemeral_url": lambda port: _findings(ephemeral_url=f"redis://cache:{port}/0"),
    "ephemeral_url, TLS": lambda port: _findings(ephemeral_url=f"valkeys://u:p@cache:{port}"),
    "ephemeral_url, node": lambda port: _findings(ephemeral_url=f"valkey://one:6379/?cluster=1&node=two:{port}"),
    "open_ephemeral": lambda port: open_ephemeral(f"valkey://[::1]:{port}"),
    "mail.url": lambda port: _findings(mail=MailSettings(url=f"smtp://mail:{port}")),
    "SmtpMailer": lambda port: SmtpMailer(MailSettings(url=f"smtps://u:p@mail:{port}")),
    "issuer": lambda port: _findings(issuer=f"http://127.0.0.1:{port}"),
    "issuer of production": lambda port: _findings(issuer=f"https://id.example.com:{port}"),
    "trusted_origins": lambda port: _findings(trusted_origins=(f"https://app.example.com:{port}",)),
    "cors_origins": lambda port: _findings(cors_origins=(f"https://app.example.com:{port}",)),
    "origins": lambda port: parse_origins([f"http://[::1]:{port}"]),
    "cors": lambda port: cors(origins=[f"https://a.example:{port}"]).bind(Services()),
    "clients.addresses": lambda port: ClientSettings(addresses=(f"http://id.internal:{port}",)),
    "remote.issuer": lambda port: RemoteSettings(issuer=f"https://id.example.com:{port}"),
    "client": lambda port: Client(f"https://id.example.com:{port}"),
    "asynchronous client": lambda port: AsyncClient(f"https://id.example.com:{port}"),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_refused_in_one_sentence(taker: str) -> None:
    for port in NONE:
        with pytest.raises(ConfigError) as caught:
            TAKERS[taker](port)
        (finding,) = [one for one in caught.value.findings if "port" in one]
        assert PORT_RANGE in finding
        assert "u:p" not in finding


@pytest.mark.parametrize("port", NONE)
def test_hosts(port: str) -> None:
    with pytest.raises(ConfigError, match="port from 1 to 65535"):
        hosts(f"api.example.com:{port}").bind(Services())


@pytest.mark.parametrize("port", [-1, 65536, 99999, 2**32 + 80, 2**64])
def test_listening(port: int) -> None:
    with pytest.raises(ConfigError, match="1 to 65535, or 0 for a free one"):
        listen("127.0.0.1", port)


def test_the_last_port_is_one() -> None:
    for port in (1, 80, 5432, 65535):
        assert port_of(f"https://a.example:{port}") == port
        assert parse_origins([f"https://a.example:{port}"])
        assert Address.parse_all(f"redis://one:{port}/?node=two:{port}")[1].port == port
        url = f"http://127.0.0.1:{port}"
        found = Settings(
            issuer=url,
            database_url=f"postgresql://one:{port},two:{port}/x",
            ephemeral_url=f"redis://a:{port}",
            mail=MailSettings(url=f"smtp://a:{port}"),
            trusted_origins=(f"https://a.example:{port}",),
        ).findings()
        assert [one for one in found if "issuer" not in one or port != 80] == []
    assert port_of("https://a.example") is None
    assert Address.parse("redis://cache").port == 6379
    assert Settings(database_url="postgresql://one,two/x").findings() == []
    assert not any(map(is_port, ["", "+1", "-1", "1 ", " 1", "1_0", "0x1", "٣", "1.0", "000080"]))
