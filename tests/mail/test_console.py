from __future__ import annotations

import io

import pytest

from routeguard.foundation.mail.console import ConsoleMailer
from routeguard.foundation.mail.protocol import Message

pytestmark = pytest.mark.anyio


async def test_a_mail_is_printed_with_its_link_and_kept():
    stream = io.StringIO()
    mailer = ConsoleMailer(stream)
    message = Message(
        to="ada@example.com", subject="Confirm", text="Open http://127.0.0.1:8000/auth/email/verify?token=t"
    )
    await mailer.send(message)
    assert "http://127.0.0.1:8000/auth/email/verify?token=t\n" in stream.getvalue()
    assert "ada@example.com" in stream.getvalue()
    assert list(mailer.sent) == [message]


async def test_only_the_last_hundred_are_kept():
    mailer = ConsoleMailer(io.StringIO())
    for number in range(150):
        await mailer.send(Message(to="ada@example.com", subject=str(number), text="x"))
    assert [message.subject for message in mailer.sent] == [str(number) for number in range(50, 150)]


async def test_a_name_in_a_mail_does_not_drive_the_terminal():
    # OBS-01
    stream = io.StringIO()
    await ConsoleMailer(stream).send(Message(to="ada@example.com", subject="Hi", text="Hello \x1b[2J\x1b]0;owned\x07"))
    assert "\x1b" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()
