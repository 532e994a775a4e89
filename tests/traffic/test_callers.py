"""Subjects of counters: one for each caller, whatever a caller chooses to be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.exchange import Exchange
from routeguard.core.policy import Stage
from routeguard.core.request import RequestView
from routeguard.core.secret import digest
from routeguard.core.services import Services
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral, hash_tag
from routeguard.foundation.ephemeral.redis import slot_of
from routeguard.protection.traffic.callers import ByFunction, ip, key_of, user
from routeguard.protection.traffic.rate_limit import rate_limit
from tests.traffic.conftest import Caller

pytestmark = pytest.mark.anyio

LONG = "a" * 200
CHOSEN = (
    "a",
    "{a}",
    "{a",
    "a}",
    "%7Ba%7D",
    "%257Ba%257D",
    "%",
    "%25",
    "",
    "{}",
    "}{",
    "{a}{b}",
    "a:b",
    "a::b",
    ":",
    "by:x:a",
    "ip:203.0.113.7",
    "{ip:203.0.113.7}",
    "usr_1",
    "{usr_1}",
    "usr_1}:rl:",
    LONG,
    LONG + "b",
    digest(LONG).hex(),
    f"%#{digest(LONG).hex()}",
    "\u00e9" * 40,
    "e\u0301" * 20,
    "\ud800",
    "a\0b",
    "a\r\nb",
    "a b",
)


@dataclass(frozen=True)
class ByHeader:
    """A key as an application may write one, which knows nothing of tags."""

    name: str = "tenant"
    stage: Stage = Stage.QUOTA

    def bind(self, services: Services) -> Callable[[Exchange], str]:
        return lambda exchange: exchange.request.scope["tenant"]  # type: ignore[no-any-return]


def x(exchange: Exchange) -> str | None:
    return exchange.request.scope["tenant"]  # type: ignore[no-any-return]


def exchange(tenant: str, principal: Any = None) -> Exchange:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "client": ("203.0.113.7", 1),
        "tenant": tenant,
    }
    made = Exchange(RequestView(scope))
    made.principal = principal
    return made


def subjects(tenant: str) -> list[str]:
    """Return what the same text is called as the value of a function, of a key and as the id of a principal."""
    services = Services()
    return [
        key_of(by).bind(services)(exchange(tenant, Caller(principal_id=tenant)))  # type: ignore[union-attr]
        for by in (x, ByHeader(), ByHeader(name="x:y"), user)
    ]


@pytest.mark.parametrize("place", range(4), ids=["function", "key", "key with a colon", "principal"])
def test_no_two_texts_share_a_subject(place: int) -> None:
    """RL-16: braces and their escapes, the digest of a long text, and other kinds of subjects."""
    found = {text: subjects(text)[place] for text in CHOSEN}
    for one, other in combinations(CHOSEN, 2):
        assert found[one] != found[other], (one, other)
    address = ip.bind(Services())(exchange("a"))
    assert address not in found.values()


def test_no_text_is_the_subject_of_another_kind() -> None:
    functions, keys, others, principals = zip(*[subjects(text) for text in CHOSEN], strict=True)
    for one, other in combinations((functions, keys, others, principals), 2):
        assert not set(one) & set(other)


@given(st.text(max_size=120), st.text(max_size=120))
def test_any_two_texts(one: str, other: str) -> None:
    for first, second in zip(subjects(one), subjects(other), strict=True):
        assert (first == second) == (one == other)
    assert (hash_tag(one) == hash_tag(other)) == (one == other)


@pytest.mark.parametrize("text", CHOSEN, ids=ascii)
def test_the_tag_is_the_whole_subject(text: str) -> None:
    """A cluster keeps all counters of one caller together, and no caller chooses whose slot that is."""
    for subject in subjects(text):
        assert subject.startswith("{")
        assert subject.endswith("}")
        assert subject.count("{") == subject.count("}") == 1
        assert len(subject) < 300
        assert slot_of(f"{subject}:rl:n:{{other}}") == slot_of(subject)


async def test_who_names_himself_after_another_spends_nothing_of_his() -> None:
    for by in (x, ByHeader()):
        services = Services()
        services.add(Ephemeral, MemoryEphemeral())
        check = rate_limit("3/hour", by=by).bind(services)
        for _ in range(20):
            for text in ("%7Bvictim%7D", digest(LONG).hex(), "victim", "{victim"):
                await check(exchange(text))
        for text in ("{victim}", LONG):
            assert [await check(exchange(text)) for _ in range(3)] == [None] * 3, text
            assert await check(exchange(text)) is not None


def test_a_key_is_named_and_staged_as_its_own_says() -> None:
    key = key_of(ByHeader())
    assert key is not None
    assert (key.name, key.stage) == ("tenant", Stage.QUOTA)
    assert key_of(key) is key
    assert isinstance(key_of(x), ByFunction)
    assert rate_limit("3/hour", by=ByHeader()).describe() == "at most 3/hour by tenant"
