"""Mail as a server receives it: a real SMTP server, with and without TLS."""

from __future__ import annotations

import datetime
import email
import ipaddress
import ssl
from email import policy

import aiosmtplib
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from routeguard.core.errors import ConfigError
from routeguard.foundation.mail.models import MailSettings
from routeguard.foundation.mail.protocol import Message
from routeguard.foundation.mail.smtp import SmtpMailer
from tests.backends import free_port

pytestmark = pytest.mark.anyio

SENDER = "Example <no-reply@example.com>"


class Inbox:
    """Keeps what is delivered."""

    def __init__(self) -> None:
        self.recipients: list[str] = []
        self.mails: list[email.message.EmailMessage] = []
        self.encrypted: list[bool] = []
        self.refuse = ""

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        if self.refuse:
            return self.refuse
        self.recipients += envelope.rcpt_tos
        self.encrypted.append(session.ssl is not None)
        self.mails.append(email.message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@pytest.fixture
def inbox():
    return Inbox()


@pytest.fixture
def serve():
    controllers = []

    def start(inbox: Inbox, **options) -> int:
        port = free_port()
        controller = Controller(inbox, hostname="127.0.0.1", port=port, **options)
        controller.start()
        controllers.append(controller)
        return port

    yield start
    for controller in controllers:
        controller.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself; returns the server's context and the file to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, path


def mailer(url: str, trust=None) -> SmtpMailer:
    return SmtpMailer(
        MailSettings(url=url, sender=SENDER), tls=ssl.create_default_context(cafile=trust) if trust else None
    )


async def test_a_mail_arrives_with_what_it_says(inbox, serve):
    port = serve(inbox)
    message = Message(to="ada@example.com", name="Žofie", subject="Přihlášení", text="Open https://x/?token=abc\n")
    await mailer(f"smtp://127.0.0.1:{port}").send(message)
    (mail,) = inbox.mails
    assert inbox.recipients == ["ada@example.com"]
    assert mail["To"] == "Žofie <ada@example.com>"
    assert mail["From"] == SENDER
    assert mail["Subject"] == "Přihlášení"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@example.com>")
    assert mail.get_content().strip() == "Open https://x/?token=abc"


async def test_markup_in_a_name_stays_text(inbox, serve):
    """ML-13: a display name with a link; the mail has no HTML part to show it in, and its header quotes it."""
    name = '<a href="https://evil.example">Click</a>'
    message = Message(to="ada@example.com", name=name, subject=f"Hello {name}", text=f"Hello {name}")
    await mailer(f"smtp://127.0.0.1:{serve(inbox)}").send(message)
    (mail,) = inbox.mails
    assert [part.get_content_type() for part in mail.walk()] == ["text/plain"]
    assert inbox.recipients == ["ada@example.com"]
    assert [address.addr_spec for address in mail["To"].addresses] == ["ada@example.com"]


async def test_an_html_part_is_an_alternative(inbox, serve):
    message = Message(to="ada@example.com", subject="Hello", text="Hello", html="<p>Hello</p>")
    await mailer(f"smtp://127.0.0.1:{serve(inbox)}").send(message)
    (mail,) = inbox.mails
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]


async def test_starttls_and_a_password_are_used(inbox, serve, certificate):
    context, trust = certificate
    seen = []

    def authenticate(server, session, envelope, mechanism, data):
        seen.append((data.login, data.password, session.ssl is not None))
        return AuthResult(success=True)

    port = serve(inbox, tls_context=context, require_starttls=True, auth_required=True, authenticator=authenticate)
    await mailer(f"smtp://us%40er:p%2Fw@127.0.0.1:{port}", trust).send(
        Message(to="a@example.com", subject="s", text="t")
    )
    assert inbox.encrypted == [True]
    assert seen == [(b"us@er", b"p/w", True)]


async def test_smtps_is_encrypted_from_the_start(inbox, serve, certificate):
    context, trust = certificate
    port = serve(inbox, ssl_context=context)
    await mailer(f"smtps://127.0.0.1:{port}", trust).send(Message(to="a@example.com", subject="s", text="t"))
    assert len(inbox.mails) == 1


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_certificate_nobody_vouches_for_is_refused(inbox, serve, certificate, scheme: str):
    """An attacker between us and the mail server must not read the links."""
    context, _ = certificate
    options = {"ssl_context": context} if scheme == "smtps" else {"tls_context": context, "require_starttls": True}
    port = serve(inbox, **options)
    with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError)):
        await mailer(f"{scheme}://127.0.0.1:{port}").send(Message(to="a@example.com", subject="s", text="t"))
    assert inbox.mails == []


async def test_off_this_machine_nothing_is_sent_in_clear():
    """A server that offers no STARTTLS, or a man in the middle who strikes it from the list."""
    assert mailer("smtp://mail.example.com")._start_tls is True
    assert mailer("smtp://127.0.0.1")._start_tls is None


@pytest.mark.parametrize("url", ["http://x", "smtp://", "", "smtp:///x"])
async def test_another_url_is_a_finding(url: str):
    with pytest.raises(ConfigError):
        mailer(url)


async def test_a_sender_that_is_no_address_is_a_finding():
    with pytest.raises(ConfigError):
        SmtpMailer(MailSettings(url="smtp://x", sender="nobody"))
