"""Marks, compilation, inventory: the guard before any request."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from routeguard.core.errors import ConfigError
from routeguard.core.exchange import Exchange
from routeguard.core.marks import policy_of
from routeguard.core.policy import Check, Policy, Stage, deferred, public
from routeguard.core.request import RequestView
from routeguard.core.services import Services
from routeguard.protection.guard.guard import Ask, Guard, handler_name
from routeguard.protection.guard.inventory import Dependency, Handler
from routeguard.protection.guard.matrix import Entry, matrix, verify
from tests.conformance.wire import KEY, Key, Limit, Unbindable, admin, key

COVERS = ("protection/guard/inventory", "protection/guard/matrix")


@pytest.fixture
def guard() -> Guard:
    return Guard(Services())


async def handler() -> None:
    """Stand for any handler."""


def entry(method: str, path: str, endpoint: Any, *, calls: tuple[Any, ...] = (), **found: Any) -> Entry:
    return Entry(Handler(method, path, endpoint, dependencies=tuple(map(Dependency, calls))), **found)


class TestMarks:
    def test_a_guard_without_a_policy_is_a_mistake(self, guard: Guard) -> None:
        with pytest.raises(ConfigError, match="public"):
            guard()

    @pytest.mark.parametrize("wrong", [True, None, "public", print, Key, 1])
    def test_only_policies_and_checks(self, guard: Guard, wrong: Any) -> None:
        """AZ-16: a truthy value is no policy."""
        with pytest.raises(ConfigError, match=r"neither|not a policy"):
            guard(wrong)

    def test_mark_else_parameter_else_default(self, guard: Guard) -> None:
        marked = guard(key)(functools.partial(handler))
        assert guard.effective_policy(policy_of(marked), admin) == key
        assert guard.effective_policy(policy_of(handler), admin) == admin
        assert guard.effective_policy(policy_of(handler), None) is None
        guard.default = public
        assert guard.effective_policy(policy_of(handler), None) == public
        assert policy_of(handler) is None


class TestCompile:
    def test_limits(self, guard: Guard) -> None:
        assert guard.compile(key, handler, "http").body_limit is None
        both = Policy.of(Limit(5), key, Limit(3))
        assert guard.compile(both, handler, "http").body_limit == 3
        assert guard.compile(Policy.of(Limit(0)), handler, "http").body_limit == 0

    @pytest.mark.parametrize(
        ("policy", "guarded"),
        [
            (public, False),
            (public & Policy.of(Limit(1)), False),
            (Policy.of(Limit(1)), True),
            (key, True),
            (public & key, True),
            (deferred, True),
            (public & deferred, True),
            (public | key, True),
        ],
        ids=str,
    )
    def test_what_counts_as_guarded(self, guard: Guard, policy: Policy, guarded: bool) -> None:
        assert guard.compile(policy, handler, "http").guarded is guarded

    def test_findings_name_the_handler(self, guard: Guard) -> None:
        with pytest.raises(ConfigError) as caught:
            guard.compile(Policy.of(Unbindable(), Unbindable()), handler, "http")
        assert caught.value.findings == (
            f"{__name__}.handler: first finding",
            f"{__name__}.handler: second finding",
        )

    @pytest.mark.anyio
    @pytest.mark.parametrize("once", [False, True])
    async def test_what_spends_something_is_not_asked_again(self, guard: Guard, once: bool) -> None:
        asked: list[str] = []

        class Counts(Check):
            stage = Stage.QUOTA

            def bind(self, services: Services) -> Any:
                async def count(exchange: Exchange) -> None:
                    asked.append("counted")

                return count

        Counts.once = once
        compiled = guard.compile(Policy.of(Counts(), Key()), handler, "http")
        for run in (compiled.run, compiled.again, compiled.unsafe):
            request = {"type": "http", "method": "GET", "path": "/", "headers": [KEY]}
            assert await run(Exchange(RequestView.from_scope(request))) is None
        assert len(asked) == (1 if once else 3)

    def test_augment_sees_policy_and_kind(self) -> None:
        guard = Guard(Services(), augment=lambda policy, kind: policy & admin if kind == "websocket" else policy)
        assert guard.compile(key, handler, "http").policy == key
        assert guard.compile(key, handler, "websocket").policy == key & admin


def test_names() -> None:
    class Self:
        """An object with an attribute that looks like a partial's, and has no end."""

        @property
        def func(self) -> Self:
            return self

    assert handler_name(handler) == f"{__name__}.handler"
    assert handler_name(functools.partial(functools.partial(handler))) == f"{__name__}.handler"
    assert handler_name(Self()).endswith("Self")


class TestInventory:
    def test_everything_wrong_at_once(self, guard: Guard) -> None:
        guard.asks.append(Ask(print, key, lambda policy: any(policy.find(Key))))
        entries = [
            entry("GET", "/fine", handler, asked=key, calls=(print,)),
            entry("GET", "/unmarked", handler),
            entry("GET", "/lacks", handler, marked=public, calls=(print,)),
            entry("GET", "/unbound", handler, marked=Policy.of(Unbindable())),
            entry("*", "/unknown", handler, problem="not known"),
            entry("GET", "/above", handler, above=Policy.of(Unbindable())),
        ]
        found = verify(guard, entries, undecided_is_fatal=True)
        assert [line.split(" (")[0].split(":")[0] for line in found] == [
            "GET /unmarked",
            "GET /lacks",
            "GET /unbound",
            "GET /unbound",
            "* /unknown",
            "GET /above",
            "GET /above",
        ]
        lenient = verify(guard, entries, undecided_is_fatal=False)
        assert lenient == [line for line in found if "no policy" not in line]

    def test_a_mount_above_provides_too(self, guard: Guard) -> None:
        guard.asks.append(Ask(print, key, lambda policy: any(policy.find(Key))))
        found = entry("GET", "/x", handler, marked=public, calls=(print,), above=key)
        assert verify(guard, [found], undecided_is_fatal=True) == []

    def test_matrix(self, guard: Guard) -> None:
        guard.default = admin
        rows = matrix(
            guard,
            [
                entry("GET", "/a", handler, marked=key),
                entry("GET", "/b", handler, asked=key),
                entry("GET", "/c", handler),
                entry("GET", "/d", handler, above=key),
                entry("GET", "/e", handler, marked=admin, above=key),
            ],
        )
        assert [(row.path, row.policy, row.source) for row in rows] == [
            ("/a", "key x-key", "mark"),
            ("/b", "key x-key", "parameter"),
            ("/c", "key x-admin", "default"),
            ("/d", "key x-key", "mark"),
            ("/e", "key x-key, key x-admin", "mark"),
        ]
        guard.default = None
        [row] = matrix(guard, [entry("GET", "/c", handler)])
        assert (row.policy, row.source) == ("refused: no decision", "undecided")
