"""Mail queued in a transaction leaves after it, whatever the mail server does meanwhile."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller

from routeguard.foundation.db.database import Database
from routeguard.foundation.db.outbox import Outbox, outbox
from routeguard.foundation.mail.console import ConsoleMailer
from routeguard.foundation.mail.models import MailSettings
from routeguard.foundation.mail.protocol import Message
from routeguard.foundation.mail.queue import MailQueue, mailer_for
from routeguard.foundation.mail.smtp import SmtpMailer
from tests.backends import free_port
from tests.fakes import FakeClock, deployment
from tests.mail.test_smtp import SENDER, Inbox

COVERS = ("foundation/mail/models",)

pytestmark = pytest.mark.anyio

KEYS = deployment()
MESSAGE = Message(to="ada@example.com", name="Ada", subject="Hello", text="https://x/?token=abc", html="<p>Hello</p>")


async def test_mail_leaves_only_for_what_was_committed(database: Database):
    box, mailer = Outbox(database, KEYS, clock=FakeClock()), ConsoleMailer()
    queue = MailQueue(box, mailer)
    with pytest.raises(LookupError):
        async with database.transaction() as tx:
            await queue.queue(tx, MESSAGE)
            raise LookupError
    await box.deliver_due()
    assert list(mailer.sent) == []
    async with database.transaction() as tx:
        await queue.queue(tx, MESSAGE)
    await box.deliver_due()
    assert list(mailer.sent) == [MESSAGE]


async def test_mail_waits_for_its_server_and_is_sent_once_when_that_is_back(database: Database):
    """ML-20: the provider is down, then refuses, then works."""
    clock, inbox, port = FakeClock(), Inbox(), free_port()
    box = Outbox(database, KEYS, clock=clock)
    queue = MailQueue(box, SmtpMailer(MailSettings(url=f"smtp://127.0.0.1:{port}", sender=SENDER)))
    began = asyncio.get_running_loop().time()
    async with database.transaction() as tx:
        await queue.queue(tx, MESSAGE)
    # Whoever asked for the mail does not wait for the provider.
    assert asyncio.get_running_loop().time() - began < 10
    assert await box.deliver_due() == 1
    controller = Controller(inbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        inbox.refuse = "451 later"
        clock.advance(10)
        assert await box.deliver_due() == 1
        assert inbox.mails == []
        inbox.refuse = ""
        clock.advance(10)
        assert await box.deliver_due() == 1
        clock.advance(100_000)
        assert await box.deliver_due() == 0
    finally:
        controller.stop()
    assert inbox.recipients == ["ada@example.com"]
    async with database.read() as tx:
        assert await tx.all(sa.select(outbox)) == []


async def test_the_url_names_the_mailer():
    assert isinstance(mailer_for(MailSettings()), ConsoleMailer)
    assert isinstance(mailer_for(MailSettings(url="smtps://mail.example.com")), SmtpMailer)
