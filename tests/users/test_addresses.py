from __future__ import annotations

import unicodedata
from email import message_from_bytes
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.errors import ProblemError
from routeguard.foundation.mail.protocol import Message
from routeguard.identity.users.addresses import parse_email, read_email, read_name
from tests.steady import work_within


@pytest.mark.parametrize(
    ("typed", "stored", "key"),
    [
        ("Ada@Example.COM", "Ada@example.com", "ada@example.com"),
        ("  ada@example.com ", "ada@example.com", "ada@example.com"),
        ("a.b+c@sub.example.co", "a.b+c@sub.example.co", "a.b+c@sub.example.co"),
        ("ada@bu\u0308cher.example", "ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@stra\u00dfe.example", "ada@xn--strae-oqa.example", "ada@xn--strae-oqa.example"),
    ],
)
def test_an_address_has_one_spelling(typed: str, stored: str, key: str):
    email = parse_email(typed)
    assert email is not None
    assert (email.text, email.key) == (stored, key)


REFUSED = {
    "ML-10 full-width at": "ada\uff20example.com",
    "ML-10 full-width letters": "\uff41da@example.com",
    "ML-10 full-width dot": "ada@example\uff0ecom",
    "ML-10 ideographic full stop": "ada@example\u3002com",
    "ML-10 half-width full stop": "ada@example\uff61com",
    "ML-10 one dot leader": "ada@example\u2024com",
    "ML-10 zero-width space": "a\u200bda@example.com",
    "ML-10 zero-width joiner": "a\u200dda@example.com",
    "ML-10 byte order mark": "\ufeffada@example.com",
    "ML-10 soft hyphen": "a\u00adda@example.com",
    "ML-10 right-to-left override": "ada\u202e@example.com",
    "ML-10 no-break space": "ada\u00a0@example.com",
    "ML-10 ligature": "\ufb01sh@example.com",
    "ML-10 circled digit": "ada\u2460@example.com",
    "ML-10 small commercial at": "ada\ufe6bexample.com",
    "ML-11 long s": "a\u017fa@example.com",
    "ML-11 Kelvin sign": "\u212aim@example.com",
    "ML-11 dotted capital I": "m\u0130ke@example.com",
    "ML-11 dotless i": "m\u0131ke@example.com",
    "ML-11 sharp s": "stra\u00dfe@example.com",
    "ML-11 Kelvin sign in the domain": "ada@\u212aim.example",
    "ML-12 carriage return": "ada@example.com\r\nBcc: eve@example.com",
    "ML-12 line feed inside": "ada\n@example.com",
    "ML-12 NUL": "ada\x00@example.com",
    "ML-12 escape": "ada\x1b@example.com",
    "two at signs": "ada@eve.example@example.com",
    "two addresses": "ada@example.com,eve@example.com",
    "quoted": '"ada"@example.com',
    "display name": "Ada <ada@example.com>",
    "blank inside": "ada lovelace@example.com",
    "no local part": "@example.com",
    "no domain": "ada@",
    "no dot": "ada@localhost",
    "double dot": "ada..b@example.com",
    "leading dot": ".ada@example.com",
    "trailing dot": "ada@example.com.",
    "address literal": "ada@[127.0.0.1]",
    "dotted numbers": "ada@127.0.0.1",
    "hyphen first": "ada@-example.com",
    "ML-12 line separator": "ada\u2028@example.com",
    "next line": "ada\x85@example.com",
    "left-to-right isolate": "\u2066ada\u2069@example.com",
    "word joiner in the domain": "ada@exam\u2060ple.com",
    "variation selector": "ada\ufe0f@example.com",
    "tag character": "ada\U000e0061@example.com",
    "encoded-word": "=?utf-8?q?e=40attacker.com?=@victim.com",
    "encoded-word in capitals": "=?UTF-8?Q?e=40attacker=2Ecom=3E?=@victim.com",
    "encoded-word in base64": "=?utf-8?b?ZUBhdHRhY2tlci5jb20=?=@victim.com",
    "encoded-word of another charset": "=?iso-8859-1?q?=65=40attacker.com?=@victim.com",
    "encoded-word with a language": "=?utf-8*en?q?e=40attacker.com?=@victim.com",
    "encoded-word of UTF-7": "=?utf-7?q?e+AEA-attacker.com?=@victim.com",
    "encoded-word after letters": "x.=?utf-8?q?e=40attacker.com?=@victim.com",
    "encoded-word with a tag": "ada+=?utf-8?q?e=40attacker.com?=@victim.com",
    "half an encoded-word": "=?utf-8?q?ada@victim.com",
    "end of an encoded-word": "ada?=@victim.com",
    "percent hack": "eve%attacker.com@victim.com",
    "bang path": "attacker.com!eve@victim.com",
    "option": "-oQ/tmp/eve@victim.com",
    "quoted at sign": '"eve@attacker.com"@victim.com',
    "quoted blank": '"eve attacker.com"@victim.com',
    "quoted pair": "eve\\@attacker.com@victim.com",
    "comment": "ada(eve@attacker.com)@victim.com",
    "comment in the domain": "ada@victim.com(attacker.com)",
    "source route": "@attacker.com:ada@victim.com",
    "route of two hosts": "<@attacker.com,@other.com:ada@victim.com>",
    "group": "friends:ada@victim.com;",
    "IPv6 literal": "ada@[IPv6:2001:db8::1]",
    "IPv4 number in hexadecimal": "ada@127.0.0.0x1",
    "one hexadecimal number": "ada@example.0x7f000001",
    "underscore in the domain": "ada@mail_host.example.com",
    "percent in the domain": "ada@example%2ecom",
    "port": "ada@example.com:25",
    "leading dot in the domain": "ada@.example.com",
    "two dots in the domain": "ada@example..com",
    "ending dot": "ada.@example.com",
    "hyphen last": "ada@example-.com",
    "punycode of nothing": "ada@xn--.example",
    "punycode of ASCII": "ada@xn--abc-.example",
    "punycode of a control character": "ada@xn--a.example",
    "punycode of a symbol": "ada@xn--n3h.example",
    "reserved label": "ada@ab--cd.example",
    "symbol": "ada@\u2603.example",
    "right-to-left against the rule": "ada@a\u05d0.example",
    "empty": "",
    "long local part": "a" * 65 + "@example.com",
    "long label": "a@" + "b" * 64 + ".com",
    "long": "a@" + "b." * 130 + "com",
}


@pytest.mark.parametrize("typed", REFUSED.values(), ids=REFUSED)
def test_what_two_readers_could_read_otherwise_is_422(typed: str):
    with pytest.raises(ProblemError) as refused:
        read_email(typed)
    assert refused.value.problem.status == 422
    assert typed not in str(refused.value.problem.body()) or not typed


@pytest.mark.parametrize(
    "typed",
    [
        "ada+news@example.com",
        "ada.lovelace@example.com",
        "o'brien@example.com",
        "jean-luc@example.com",
        "ada_l@example.com",
        "r&d@example.com",
        "ada=x@example.com",
        "ada+a=b@example.com",
        "ada?@example.com",
        "1@example.com",
        "a@b.co",
        "ada@example.museum",
        "ada@example.photography",
        "ada@mail.example.co.uk",
        "ada@3com.example",
        "ada@1.2.3.example",
        "ada@a-b.example",
        "ada@example.xn--p1ai",
        "ada@xn--bcher-kva.example",
        "ada@\u0434\u0436\u043f\u0443\u043a\u0438\u043d\u0433.\u0440\u0444",
        "ada@\u4f8b\u5b50.\u5e7f\u544a",
        "ada@\u05d0\u05d1.example",
        "a" * 64 + "@example.com",
        "ada@" + "b" * 63 + ".com",
    ],
)
def test_addresses_that_people_have_are_taken(typed: str):
    assert parse_email(typed) is not None
    Message(to=parse_email(typed).text, subject="It can be mailed to", text="")  # type: ignore[union-attr]


def test_mail_software_reads_the_address_that_was_checked():
    """What was accepted is one address, of the same mailbox, after a mail with it was written and read again."""
    for typed in (
        "ada=x@example.com",
        "ada?@example.com",
        "ada+a=b?c@example.com",
        "=ada=@example.com",
        "#'*`{|}~@x.co",
    ):
        address = parse_email(typed)
        assert address is not None
        mail = EmailMessage()
        mail["To"] = Address("", *address.text.rsplit("@", 1))
        read = message_from_bytes(bytes(mail), policy=default)
        assert [one.addr_spec for one in read["To"].addresses] == [address.text]
        assert str(make_header(decode_header(bytes(mail).decode().partition(": ")[2].strip()))) == address.text


@given(st.text(alphabet=st.characters(), max_size=40).map(lambda text: text + "@example.com") | st.text(max_size=60))
def test_reading_an_address_again_changes_nothing(typed: str):
    """ML-10: normalised once; no later normalisation makes another address of it."""
    email = parse_email(typed)
    if email is None:
        return
    assert parse_email(email.text) == email
    assert unicodedata.normalize("NFKC", email.text) == email.text
    assert email.text.isprintable()
    Message(to=email.text, subject="It can be mailed to", text="")


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_addresses_with_one_key_differ_in_case_only(left: str, right: str):
    """ML-11"""
    one, other = parse_email(f"{left}@example.com"), parse_email(f"{right}@example.com")
    if one is not None and other is not None and one.key == other.key:
        assert one.text.isascii()
        assert one.text.lower() == other.text.lower()


@pytest.mark.parametrize("part", ["a", ".", "@", "\u0301", "\u00e9", "xn--", "-", "\u3002", "(", '"'])
def test_time_does_not_grow_with_what_is_sent(part: str):
    """INJ-04"""
    text = part * (100_000 // len(part))
    with work_within(0.5):
        for typed in (text, f"{text}@example.com", f"a@{text}.com", text[:250], f"a@{text[:240]}.com"):
            parse_email(typed)


@pytest.mark.parametrize(
    "name", ["Ada\r\nBcc: x@y.example", "Ada\nX", "\x00", "a\x7fb", "a\u2028b", "a\u202eb", "a\u200bb"]
)
def test_a_name_with_control_characters_is_422(name: str):
    """ML-12"""
    with pytest.raises(ProblemError) as refused:
        read_name(name)
    assert refused.value.problem.status == 422


@pytest.mark.parametrize(
    "name", ["", "Ada", "\u0410\u0434\u0430", "O'Brien-\u00d8", "{{7*7}}", "<b>x</b>", "\U0001f469\u200d\U0001f4bb"]
)
def test_a_name_may_be_any_line_of_text(name: str):
    assert read_name(f" {name} ") == name


def test_a_long_name_is_422():
    assert read_name("x" * 100)
    with pytest.raises(ProblemError):
        read_name("x" * 101)
