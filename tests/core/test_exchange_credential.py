"""By which credential a principal was found, and what is remembered once a request."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from routeguard.core.credentials import Credential
from routeguard.core.exchange import Exchange
from routeguard.core.request import RequestView

KEY = Credential("key", b"secret")


@dataclass(frozen=True)
class Caller:
    principal_id: str


ALICE, EVE = Caller("usr_alice"), Caller("usr_eve")


@pytest.fixture
def exchange() -> Exchange:
    return Exchange(RequestView({"type": "http", "method": "POST", "path": "/", "headers": []}))


def test_no_principal_has_no_credential(exchange: Exchange) -> None:
    assert exchange.credential is None
    exchange.record_credential(ALICE, KEY)
    assert exchange.credential is None


def test_a_credential_is_that_of_its_principal_alone(exchange: Exchange) -> None:
    """CSRF-01: the attacker's own key beside the victim's cookie."""
    exchange.principal = EVE
    exchange.record_credential(EVE, KEY)
    assert exchange.credential is KEY
    exchange.principal = ALICE
    assert exchange.credential is None
    # An equal value is another principal: it was found by something else.
    exchange.principal = Caller("usr_eve")
    assert exchange.credential is None


def test_a_refused_branch_leaves_no_credential(exchange: Exchange) -> None:
    branch = exchange.fork()
    branch.principal = ALICE
    branch.record_credential(ALICE, KEY)
    assert (exchange.principal, exchange.credential) == (None, None)
    exchange.adopt(branch)
    assert exchange.credential is KEY


def test_branches_of_branches_share_what_is_remembered(exchange: Exchange) -> None:
    inner = exchange.fork().fork()
    inner.memo["spent"] = True
    assert exchange.memo == {"spent": True}
    assert exchange.fork().memo is exchange.memo
    assert inner.original is exchange
    assert exchange.original is exchange


def test_a_replaced_cookie_is_told_by_a_refused_branch_too(exchange: Exchange) -> None:
    exchange.add_header(b"set-cookie", b"token=old; Path=/")
    exchange.add_header(b"set-cookie", b"other=1; Path=/")
    branch = exchange.fork()
    branch.replace_cookies(b"token=new; Path=/")
    for one in (exchange, branch):
        assert one.effects == [(b"set-cookie", b"other=1; Path=/"), (b"set-cookie", b"token=new; Path=/")]


def test_the_value_of_a_credential_is_in_no_log() -> None:
    assert "secret" not in repr(KEY)
    assert "secret" not in f"{KEY}"
