"""Signature-Input, Signature and Content-Digest are read one way only."""

from __future__ import annotations

import pytest

from routeguard.foundation.signatures.digest import check_digest, content_digest
from routeguard.foundation.signatures.fields import MAXIMUM_COMPONENTS, read_signature
from routeguard.foundation.signatures.models import SignatureError

VALUE = f"sig=:{'A' * 86}==:"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param('sig=("@method")', id="no parameters"),
        pytest.param('sig=();created=1;keyid="a";nonce="b";tag="c";alg="d";expires=2', id="nothing covered"),
        pytest.param('*a.b-c_1=("x-a" "@path");created=0', id="every letter of a label"),
    ],
)
def test_what_can_be_read(text: str) -> None:
    if text:
        assert read_signature(text, VALUE.replace("sig", text.partition("=")[0])).parameters == text.partition("=")[2]
    else:
        with pytest.raises(SignatureError):
            read_signature(text, VALUE)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('sig=("@method"), sig=("@path")', id="the same label twice"),
        pytest.param('sig=("@method"), two=("@path")', id="two labels"),
        pytest.param('two=("@method")', id="another label"),
        pytest.param('SIG=("@method")', id="label in capitals"),
        pytest.param('sig=("@method" )', id="space at the end"),
        pytest.param('sig=("@method"  "@path")', id="two spaces"),
        pytest.param('sig=("@method"\t"@path")', id="tab"),
        pytest.param('sig=("@method");created=1 ', id="space after"),
        pytest.param('sig=("@method"); created=1', id="space before a parameter"),
        pytest.param('sig=("@Method")', id="capital"),
        pytest.param("sig=(@method)", id="no quotes"),
        pytest.param('sig=("@method";req)', id="parameter of a component"),
        pytest.param('sig=("@query-param";name="x")', id="one parameter of the query"),
        pytest.param('sig=("@method" "@method")', id="component twice"),
        pytest.param('sig=("@method");created=1;created=1', id="parameter twice"),
        pytest.param('sig=("@method");other=1', id="unknown parameter"),
        pytest.param('sig=("@method");created', id="true"),
        pytest.param('sig=("@method");created=?1', id="boolean"),
        pytest.param('sig=("@method");created=:AAAA:', id="bytes"),
        pytest.param('sig=("@method");created=@1', id="date"),
        pytest.param('sig=("@method");keyid=token', id="token"),
        pytest.param('sig=("@method");keyid="a\\"b"', id="escape"),
        pytest.param('sig=("@method");keyid="a', id="open string"),
        pytest.param('sig=("@method");keyid="ä"', id="not ASCII"),
        pytest.param('sig=("@method");created=٣', id="digits of another script"),
        pytest.param('sig=("@method");created=1234567890123456', id="16 digits"),
        pytest.param('sig="@method"', id="no list"),
        pytest.param('sig=("@method"', id="open list"),
        pytest.param("sig", id="label alone"),
    ],
)
def test_what_is_not_of_one_meaning_is_refused(text: str) -> None:
    """WH-20"""
    with pytest.raises(SignatureError):
        read_signature(text, VALUE)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(f"sig=:{'A' * 86}==:, sig=:{'A' * 86}==:", id="twice"),
        pytest.param(f"sig=:{'A' * 85}B==:", id="another spelling of the same bytes"),
        pytest.param(f"sig=:{'A' * 88}:", id="66 bytes"),
        pytest.param(f"sig=:{'A' * 82}==:", id="short"),
        pytest.param(f"sig=:{'-' * 86}==:", id="base64url"),
        pytest.param("sig=::", id="empty"),
        pytest.param(f"sig={'A' * 86}==", id="no colons"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_signature_has_one_spelling(value: str) -> None:
    """WH-20"""
    with pytest.raises(SignatureError):
        read_signature('sig=("@method");created=1', value)


def test_components_are_counted() -> None:
    """WH-20"""
    names = [f'"x-{number}"' for number in range(MAXIMUM_COMPONENTS + 1)]
    assert len(read_signature(f"sig=({' '.join(names[:-1])})", VALUE).components) == MAXIMUM_COMPONENTS
    for count in (MAXIMUM_COMPONENTS + 1, 10_000):
        with pytest.raises(SignatureError):
            read_signature(f"sig=({' '.join((names * 400)[:count])})", VALUE)


BODY = b"body"
GOOD = content_digest(BODY)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param(content_digest(b"other"), id="another body's"),
        pytest.param(GOOD + ", ", id="comma at the end"),
        pytest.param(f"{GOOD}, {GOOD}", id="twice"),
        pytest.param(f"{GOOD},{GOOD.replace('256', '512')}", id="no space"),
        pytest.param(GOOD.replace("sha-256", "SHA-256"), id="capitals"),
        pytest.param(f"md5=:AAAA:, {GOOD}", id="md5"),
        pytest.param(f"unixsum=1, {GOOD}", id="checksum"),
        pytest.param(GOOD + ";q=1", id="parameter"),
        pytest.param(GOOD.replace(":", ""), id="no colons"),
        pytest.param("sha-256=::", id="nothing"),
    ],
)
def test_a_digest_that_is_not_the_bodys_is_refused(value: str) -> None:
    """WH-01"""
    check_digest(GOOD, BODY)
    with pytest.raises(SignatureError):
        check_digest(value, BODY)


def test_a_digest_has_one_spelling() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = GOOD[-3]
    other = GOOD[:-3] + letters[letters.index(last) ^ 1] + GOOD[-2:]
    with pytest.raises(SignatureError):
        check_digest(other, BODY)
