"""What is signed is accepted, and nothing else is."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import pytest

from routeguard.foundation.signatures.base import signature_base
from routeguard.foundation.signatures.digest import content_digest
from routeguard.foundation.signatures.fields import read_signature
from routeguard.foundation.signatures.keys import new_secret, public_key, signing_key
from routeguard.foundation.signatures.models import Message, SignatureError
from routeguard.foundation.signatures.profile import REQUIRED, TAG, ClientSigner, sign, signature_of

from .messages import CALL, NOW, SECRET, accept, signed, with_fields

NONCE = "n" * 24


def test_a_signed_call_is_accepted() -> None:
    assert accept(signed()) == "cli_1"


def test_so_is_one_without_query_body_and_type() -> None:
    assert accept(signed(Message.of("GET", "https://id.example.com"))) == "cli_1"


def test_both_keys_count_while_a_secret_is_replaced() -> None:
    """WH-17"""
    old, new = new_secret(), new_secret()
    keys = (public_key(new), public_key(old))
    assert accept(signed(secret=old), *keys) == "cli_1"
    assert accept(signed(secret=new), *keys) == "cli_1"
    with pytest.raises(SignatureError, match="not that of this message"):
        accept(signed(secret=old), public_key(new))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"method": "PUT"}, id="method"),
        pytest.param({"method": "post"}, id="method in lower case"),
        pytest.param({"authority": "other.example.com"}, id="authority"),
        pytest.param({"target": "/oauth/other?trace=1&x=%20y"}, id="path"),
        pytest.param({"target": "/oauth/introspect?trace=1&x=+y"}, id="query spelt otherwise"),
        pytest.param({"target": "/oauth/introspect"}, id="query gone"),
        pytest.param({"target": "/oauth/introspect?trace=1&x=%20y&a"}, id="query longer"),
        pytest.param({"body": b'{"token": "u"}'}, id="body"),
        pytest.param({"body": b'{"token":"t"}'}, id="body written anew"),
        pytest.param({"body": b""}, id="body gone"),
    ],
)
def test_a_changed_message_is_refused(changed: dict[str, str | bytes]) -> None:
    """WH-01, WH-04, WH-21"""
    with pytest.raises(SignatureError):
        accept(replace(signed(), **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"content_type": "text/plain"}, id="another type"),
        pytest.param({"content_type": None}, id="no type"),
        pytest.param({"content_digest": content_digest(b"other")}, id="another digest"),
        pytest.param({"content_digest": None}, id="no digest"),
        pytest.param({"signature": None}, id="no signature"),
        pytest.param({"signature_input": None}, id="no input"),
        pytest.param({"signature": f"sig=:{'A' * 86}==:"}, id="zeros"),
    ],
)
def test_a_changed_field_is_refused(fields: dict[str, str | None]) -> None:
    """WH-01, WH-07"""
    with pytest.raises(SignatureError):
        accept(with_fields(signed(), **fields))


def test_a_type_added_to_a_call_that_had_none_is_refused() -> None:
    """WH-01"""
    call = signed(replace(CALL, headers={}))
    with pytest.raises(SignatureError, match="does not cover"):
        accept(with_fields(call, content_type="application/json"))


def test_another_field_may_be_added_on_the_way() -> None:
    assert accept(with_fields(signed(), via="1.1 proxy", x_request_id="7")) == "cli_1"


@pytest.mark.parametrize(
    ("now", "good"),
    [(NOW, True), (NOW + 59.9, True), (NOW + 60, False), (NOW - 30, True), (NOW - 30.1, False), (NOW + 10**9, False)],
)
def test_a_signature_lives_for_a_minute(now: float, good: bool) -> None:
    """WH-02"""
    if good:
        assert accept(signed(), now=now) == "cli_1"
    else:
        with pytest.raises(SignatureError, match="not yet, or no more, valid"):
            accept(signed(), now=now)


def remade(old: str, new: str) -> Message:
    """Return a call whose parameters were changed by somebody who has the key."""
    fields = sign(CALL, key=signing_key(SECRET), keyid="cli_1", created=NOW, nonce=NONCE)
    call = with_fields(CALL, **fields)
    text = call.headers["signature-input"]
    assert old in text
    parameters = text.replace(old, new).removeprefix("sig=")
    try:
        read = read_signature(f"sig={parameters}", call.headers["signature"])
        value = b64encode(signing_key(SECRET).sign(signature_base(call, read.components, parameters))).decode()
    except SignatureError:
        value = "A" * 86 + "=="
    return with_fields(call, signature_input=f"sig={parameters}", signature=f"sig=:{value}:")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *[
            pytest.param(f'"{name}" ' if name != "content-digest" else ' "content-digest"', "", id=name)
            for name in REQUIRED
        ],
        pytest.param(' "content-type"', "", id="content-type not covered"),
        pytest.param(f";created={NOW}", "", id="no created"),
        pytest.param(f";expires={NOW + 60}", "", id="no expires"),
        pytest.param(f";expires={NOW + 60}", f";expires={NOW + 61}", id="too long a life"),
        pytest.param(f";expires={NOW + 60}", f";expires={NOW}", id="no life"),
        pytest.param(f";expires={NOW + 60}", f";expires={NOW - 1}", id="negative life"),
        pytest.param(f";created={NOW}", f";created={NOW}.5", id="fraction"),
        pytest.param(f";created={NOW}", ";created=-1", id="negative time"),
        pytest.param(f";created={NOW}", f";created=1{'0' * 30}", id="10^30"),
        pytest.param(f";created={NOW}", ";created=nan", id="NaN"),
        pytest.param(f";created={NOW}", f';created="{NOW}"', id="time as text"),
        pytest.param(f";created={NOW}", f";created=0{NOW}", id="time spelt otherwise"),
        pytest.param(';alg="ed25519"', ';alg="hmac-sha256"', id="another algorithm"),
        pytest.param(';alg="ed25519"', ';alg="none"', id="no algorithm"),
        pytest.param(';keyid="cli_1"', "", id="no key id"),
        pytest.param(';keyid="cli_1"', ';keyid=""', id="empty key id"),
        pytest.param(f';tag="{TAG}"', "", id="no tag"),
        pytest.param(f';tag="{TAG}"', ';tag="other"', id="another tag"),
        pytest.param(f';tag="{TAG}"', f';tag="{TAG}";tag="{TAG}"', id="tag twice"),
        pytest.param('"@path"', '"@path";req', id="component with a parameter"),
        pytest.param('"@path"', '"@path" "@path"', id="component twice"),
        pytest.param('"@path"', '"@path" "@status"', id="derived component of a response"),
        pytest.param('"@path"', '"@path" "@evil"', id="unknown derived component"),
        pytest.param('"@path"', '"@path" "x-absent"', id="field that is not there"),
        pytest.param('"@path"', '"@path" "@signature-params"', id="the parameters themselves"),
    ],
)
def test_less_than_the_profile_is_refused_even_when_signed(old: str, new: str) -> None:
    """WH-02, WH-20"""
    with pytest.raises(SignatureError):
        accept(remade(old, new))


def test_the_algorithm_need_not_be_said() -> None:
    assert accept(remade(';alg="ed25519"', "")) == "cli_1"


@pytest.mark.parametrize("nonce", ["", "short", "x" * 65, "ö" * 20, "a b" * 8, "a.b" * 8])
def test_a_nonce_has_16_to_64_letters(nonce: str) -> None:
    with pytest.raises(SignatureError):
        accept(remade(f'nonce="{NONCE}"', f'nonce="{nonce}"'))


def test_every_signature_has_a_nonce_of_its_own() -> None:
    assert len({signature_of(signed()).nonce for _ in range(50)}) == 50


@pytest.mark.parametrize("keyid", ['cli_1";tag="x', "cli\n1", "", "ü", "x" * 300])
def test_a_key_id_that_could_not_be_read_is_not_written(keyid: str) -> None:
    """WH-08"""
    with pytest.raises(SignatureError):
        sign(CALL, key=signing_key(SECRET), keyid=keyid, created=NOW)


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "\x00", "ä"])
def test_a_value_that_could_pass_for_another_line_is_not_signed(value: str) -> None:
    with pytest.raises(SignatureError):
        signed(replace(CALL, headers={"content-type": value}))


def test_neither_secret_nor_key_shows() -> None:
    """OPS-22"""
    assert SECRET[4:20] not in repr(ClientSigner.of("cli_1", SECRET))
    with pytest.raises(ValueError, match="not a client secret") as error:
        ClientSigner.of("cli_1", SECRET[:-1])
    assert SECRET[4:20] not in str(error.value)
