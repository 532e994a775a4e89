"""What is wrong with the connection to a service is said before the first request, all of it at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from routeguard import ClientTls, Routeguard, Settings
from routeguard.core.errors import ConfigError
from routeguard.foundation.signatures.keys import new_secret
from tests.cli.test_tls import Authority, private_bytes

SECRET = new_secret()


def findings(url: str, client_id: str = "cli_a", secret: str = SECRET, tls: ClientTls | None = None) -> tuple[str, ...]:
    settings = Settings(issuer="http://127.0.0.1:9000", environment="development")
    try:
        Routeguard.remote(url, client_id, secret, tls=tls, settings=settings)
    except ConfigError as error:
        return error.findings
    return ()


@pytest.mark.parametrize(
    "url",
    ["https://id.example", "https://id.example/", "https://id.example:8443", "http://[::1]:8000", "https://10.1.2.3"],
)
def test_an_origin_is_taken(url: str):
    assert findings(url) == ()


@pytest.mark.parametrize(
    "url",
    [
        "https://id.exa mple",
        "http://[::1]:99999",
        "https://id.example:0",
        "https://id.example:x",
        "https://[::1",
        "https://id.example\r\nx: y",
        "https://u:p@id.example",
        "https://id.example/path",
        "http://id.example",
        "",
    ],
)
def test_what_is_no_origin_is_refused(url: str):
    assert len(findings(url)) == 1


@pytest.mark.parametrize("client_id", ["", "cli_", 'x"y', "cli_é", "cli_\n", "cli_a\n", "usr_a", "cli_" + "a" * 101])
def test_a_client_id_that_cannot_be_one_is_refused(client_id: str):
    assert len(findings("https://id.example", client_id)) == 1


def test_all_of_it_is_said_at_once():
    assert len(findings("https://[::1", "x", "y", ClientTls("/nowhere", "/nowhere"))) == 4


def test_a_locked_key_is_refused_and_nobody_is_asked_for_its_passphrase(tmp_path: Path):
    """In a process of its own, for the one that asks would wait for a terminal."""
    certificate, private = Authority(tmp_path, "ours").issue("app", ExtendedKeyUsageOID.CLIENT_AUTH)
    open_key = load_pem_private_key(Path(private).read_bytes(), None)
    assert isinstance(open_key, ec.EllipticCurvePrivateKey)
    key = tmp_path / "locked.pem"
    key.write_bytes(private_bytes(open_key, BestAvailableEncryption(b"secret")))
    program = (
        "import sys\nfrom tests.remote.test_config import ClientTls, findings\n"
        "print(findings('https://id.example', tls=ClientTls(*sys.argv[1:])))"
    )
    made = subprocess.run(
        [sys.executable, "-c", program, certificate, str(key)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        start_new_session=True,
    )
    assert "locked by a passphrase" in made.stdout, made.stderr
    assert "pass phrase" not in made.stderr
