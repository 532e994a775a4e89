"""Who mail comes from and goes to."""

from __future__ import annotations

import pytest

from routeguard.core.errors import ProblemError
from routeguard.foundation.mail.addresses import parse_sender
from routeguard.foundation.mail.protocol import Message
from routeguard.settings import Settings

ENCODED = "=?utf-8?q?e=40attacker.com?=@victim.com"


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("Routeguard <no-reply@localhost>", "Routeguard", "no-reply@localhost"),
        ("no-reply@example.com", "", "no-reply@example.com"),
        ('"Example, Inc." <no-reply@Example.com>', "Example, Inc.", "no-reply@example.com"),
        ("\u017dofie <no-reply@b\u00fccher.example>", "\u017dofie", "no-reply@xn--bcher-kva.example"),
    ],
)
def test_a_sender_is_an_address_with_or_without_a_name(text: str, name: str, address: str) -> None:
    found = parse_sender(text)
    assert found is not None
    assert (found[0], found[1].text) == (name, address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nobody",
        "Example <no-reply>",
        ENCODED,
        f"Example <{ENCODED}>",
        '"a b"@example.com',
        "Example <a@b.example>, Eve <e@attacker.com>",
        "a@b.example, e@attacker.com",
        "Example <a@b.example> x",
        "Ex\r\nBcc: e@attacker.com <a@b.example>",
        "Example <@attacker.com:a@b.example>",
        "a%b@example.com",
        "a@b.example (comment)",
        "friends: a@b.example;",
        "Example <a@[127.0.0.1]>",
        "<<a@b.example>>",
    ],
)
def test_another_sender_is_a_finding_before_the_start(text: str) -> None:
    assert parse_sender(text) is None
    settings, _ = Settings.read(environ={"ROUTEGUARD_MAIL_SENDER": text})
    assert [line for line in settings.findings() if "mail.sender" in line]


@pytest.mark.parametrize("to", [ENCODED, '"a b"@example.com', "a%b@example.com", "a!b@example.com", "-a@example.com"])
def test_no_mail_goes_to_an_address_two_programs_read_otherwise(to: str) -> None:
    with pytest.raises(ProblemError) as refused:
        Message(to=to, subject="Hello", text="x")
    assert refused.value.problem.status == 422
