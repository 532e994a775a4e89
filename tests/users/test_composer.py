from __future__ import annotations

import pytest

from routeguard.core.errors import ProblemError
from routeguard.identity.users.composer import EmailComposer

LETTERS = EmailComposer.of("https://id.example.com/")


def test_links_begin_with_the_issuer():
    """ML-07"""
    assert LETTERS.link("/auth/sign-in") == "https://id.example.com/auth/sign-in"


def test_a_token_stands_where_browsers_send_it_to_no_server():
    """ML-14"""
    assert LETTERS.link("/auth/email/verify", token="a.b&c") == "https://id.example.com/auth/email/verify#token=a.b%26c"


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "<a href='https://evil.example'>x</a>", 'x" onload="y']
)
def test_markup_in_a_name_is_shown_and_not_obeyed(name: str):
    """ML-13"""
    message = LETTERS.write("ada@example.com", "Subject", "Text", link="https://x.example/?a=1&b=2", name=name)
    assert message.html is not None
    assert name not in message.html
    assert message.html.count("<a ") == 1
    assert "<img" not in message.html
    assert name in message.text


@pytest.mark.parametrize("name", ["{{7*7}}", "${7*7}", "{0.__class__}", "%(x)s", "{% raw %}", "#{7*7}"])
def test_template_syntax_in_a_name_is_literal(name: str):
    """INJ-05"""
    message = LETTERS.write("ada@example.com", "Subject", "Text", name=name)
    assert name in message.text
    assert name in (message.html or "")


@pytest.mark.parametrize("to", ["ada@example.com\r\nBcc: eve@example.com", "ada@example.com\nX: y"])
def test_no_mail_has_a_line_break_in_its_head(to: str):
    """ML-12"""
    with pytest.raises(ProblemError) as refused:
        LETTERS.write(to, "Subject", "Text")
    assert refused.value.problem.status == 422
