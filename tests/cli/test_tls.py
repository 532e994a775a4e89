"""`routeguard serve` with TLS of its own, and with certificates that its callers have to show."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from routeguard.cli.tls import server_context
from routeguard.core.errors import ConfigError
from routeguard.foundation.signatures.models import Message
from routeguard.foundation.signatures.profile import ClientSigner
from routeguard.foundation.web.models import TlsSettings
from tests.backends import free_port
from tests.cli.conftest import Command
from tests.servers import ROUTEGUARD, environment

_PATIENCE = 60.0


@dataclass
class Authority:
    """A certificate authority in a folder of its own."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self.name, self.key, None)
        self.path = self.folder / f"{self.name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, usage: x509.ObjectIdentifier) -> tuple[str, str]:
        """Return the files of a new certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, usage)
        chain, private = self.folder / f"{self.name}-{name}.pem", self.folder / f"{self.name}-{name}.key"
        chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(private_bytes(key, serialization.NoEncryption()))
        return str(chain), str(private)

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, usage: x509.ObjectIdentifier | None
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if usage is None:
            signs = x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            )
            made = made.add_extension(signs, critical=True)
        else:
            host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            made = made.add_extension(x509.SubjectAlternativeName([host]), critical=False)
            made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return made.sign(self.key, hashes.SHA256())


def private_bytes(key: ec.EllipticCurvePrivateKey, locked: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody asked for."""
    return Authority(tmp_path_factory.mktemp("theirs"), "theirs")


@contextlib.contextmanager
def serving(directory: Path, url: str, *arguments: str) -> Iterator[None]:
    """Run `routeguard serve` on the port of `url` until the end of the block."""
    values = {"ROUTEGUARD_ENVIRONMENT": "development", "ROUTEGUARD_ISSUER": url}
    port = url.rpartition(":")[2]
    out, err = directory / "stdout", directory / "stderr"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [ROUTEGUARD, "serve", "--port", port, "--drain", "0", *arguments],
            cwd=directory,
            env=environment(**values),
            stdout=stdout,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
        )
    try:
        deadline = time.monotonic() + _PATIENCE
        # A bound port takes connections before anybody answers them; the lifespan's end is what says that it does.
        while "Uvicorn running" not in err.read_text() and "startup complete" not in err.read_text():
            assert process.poll() is None, err.read_text()
            assert time.monotonic() < deadline, err.read_text()
            time.sleep(0.05)
        assert f"Listening on {url} " in out.read_text()
        yield
        process.terminate()
        assert process.wait(30) in {0, -15}, err.read_text()
    finally:
        process.kill()
        process.wait()


def trusting(authority: Authority, *files: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if files:
        context.load_cert_chain(*files)
    return context


def test_only_a_certificate_of_the_authority_gets_in(
    ours: Authority, theirs: Authority, command: Command, tmp_path: Path
) -> None:
    """Without one, with one of another authority, and with one that is not for clients, no request is read."""
    assert command("migrate").returncode == 0
    made = command("client", "create", "shop").stdout
    match = re.search(r"(cli_\S+)\nsecret: (rgs_\S+)", made)
    assert match is not None
    url = f"https://127.0.0.1:{free_port()}"
    certificate, key = ours.issue("server", ExtendedKeyUsageOID.SERVER_AUTH)
    options = ("--tls-certificate", certificate, "--tls-key", key, "--client-ca", str(ours.path))
    good = ours.issue("shop", ExtendedKeyUsageOID.CLIENT_AUTH)
    with serving(tmp_path, url, *options):
        with httpx.Client(verify=trusting(ours, *good), timeout=60) as client:
            # A certificate opens the connection, and nothing more: each call is signed.
            answer = client.post(url + "/oauth/introspect", json={"token": "x"})
            assert answer.status_code == 401
            body = b'{"token": "x"}'
            call = Message.of(
                "POST", url + "/oauth/introspect", headers={"content-type": "application/json"}, body=body
            )
            signed = ClientSigner.of(match[1], match[2]).headers(call, now=time.time())
            answer = client.post(url + "/oauth/introspect", content=body, headers={**call.headers, **signed})
            assert (answer.status_code, answer.json()) == (200, {"active": False})
        foreign = theirs.issue("shop", ExtendedKeyUsageOID.CLIENT_AUTH)
        for context in (trusting(ours), trusting(ours, *foreign), trusting(ours, certificate, key)):
            with httpx.Client(verify=context, timeout=60) as client, pytest.raises(httpx.TransportError):
                client.get(url + "/healthz")
        with httpx.Client(timeout=60) as client, pytest.raises(httpx.TransportError):
            client.get(url.replace("https", "http") + "/healthz")


def test_without_an_authority_anybody_may_call(ours: Authority, command: Command, tmp_path: Path) -> None:
    assert command("migrate").returncode == 0
    url = f"https://127.0.0.1:{free_port()}"
    certificate, key = ours.issue("server", ExtendedKeyUsageOID.SERVER_AUTH)
    with serving(tmp_path, url, "--tls-certificate", certificate, "--tls-key", key):
        with httpx.Client(verify=trusting(ours), timeout=60) as client:
            assert client.get(url + "/healthz").status_code == 200
        old = trusting(ours)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        with httpx.Client(verify=old, timeout=60) as client:
            assert client.get(url + "/healthz").status_code == 200


def test_files_that_are_no_good_are_said_at_start(ours: Authority, theirs: Authority, tmp_path: Path) -> None:
    certificate, key = ours.issue("one", ExtendedKeyUsageOID.SERVER_AUTH)
    _, other = theirs.issue("two", ExtendedKeyUsageOID.SERVER_AUTH)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        private_bytes(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"x"))
    )
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for wrong in (
        TlsSettings(certificate=certificate, key=other),
        TlsSettings(certificate=certificate, key=str(locked)),
        TlsSettings(certificate=certificate, key=str(tmp_path / "missing")),
        TlsSettings(certificate=str(empty), key=key),
        TlsSettings(certificate=certificate, key=key, client_ca=str(empty)),
        TlsSettings(certificate=certificate, key=key, client_ca=str(tmp_path / "missing")),
    ):
        with pytest.raises(ConfigError, match="tls: "):
            server_context(wrong)
    assert server_context(TlsSettings()) is None
    context = server_context(TlsSettings(certificate=certificate, key=key, client_ca=str(ours.path)))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "half", [{"certificate": "a"}, {"key": "a"}, {"client_ca": "a"}, {"client_ca": "a", "key": "b"}], ids=str
)
def test_half_of_it_is_refused(half: dict[str, str], command: Command) -> None:
    with pytest.raises(ConfigError):
        TlsSettings(**half)
    flags = {"certificate": "--tls-certificate", "key": "--tls-key", "client_ca": "--client-ca"}
    options = [part for name, value in half.items() for part in (flags[name], value)]
    result = command("serve", *options, ROUTEGUARD_ENVIRONMENT="development")
    assert result.returncode == 2
    assert "tls." in result.stderr
