"""Policies of what stands around a handler: mounts, mounted applications and routers that carry one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.core.request import RequestView
from routeguard.protection.guard.facts import Seen

if TYPE_CHECKING:
    from routeguard.core.check import Outcome
    from routeguard.protection.guard.asgi import App, Receive, Scope, Send
    from routeguard.protection.guard.decider import Decider
    from routeguard.protection.guard.guard import Compiled


class Layer:
    """One of them on the way of a request. `owners` are the objects that carry the policy."""

    __slots__ = ("asked", "compiled", "owners")

    def __init__(self, owners: tuple[object, ...], compiled: Compiled, *, asked: bool) -> None:
        self.owners = owners
        self.compiled = compiled
        self.asked = asked
        """Whether the policy has passed. What a router carries is asked where a route below it has been chosen: the
        parameters of the path are known there."""


class Around:
    """The policy of a route that hands requests to an application: `compiled` holds for the routes in that too."""

    __slots__ = ("compiled", "owners")

    def __init__(self, owners: tuple[object, ...], compiled: Compiled) -> None:
        self.owners = owners
        self.compiled = compiled


class Within:
    """The policy of a route with middleware of its own: what that passes on is looked at before the handler runs."""

    __slots__ = ("compiled",)

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled


def has_changed(connection: Decider, scope: Scope) -> bool:
    """Take the facts anew where a middleware passed on others, and return whether what was decided no longer counts.

    The method that a check let pass is not the method the handler would run for (attack: an X-HTTP-Method-Override
    that makes a POST of a GET behind a mount), and what was found by other headers belongs to another caller.
    """
    seen, watched = connection.request, connection.watched
    if watched is not None:
        changed, same_caller = not watched.holds(scope), watched.same_caller(scope)
    else:
        headers = scope["headers"]
        # Reading `Request.headers` alone makes a new, equal list.
        same_caller = seen.raw_headers is headers or seen.raw_headers == headers
        method = scope["method"] if seen.kind == "http" else seen.method
        changed = seen.scope is not scope or not same_caller or seen.method != method
    if changed or seen.scope is not scope:
        connection.request = RequestView(scope)
    connection.unsafe = seen.is_safe and not connection.request.is_safe
    if changed:
        connection.decision = None
        connection.watched = None if watched is None else Seen(scope)
    if not same_caller:
        connection.facts.clear()
        connection.principal = None
    return changed


async def ask_all(
    connection: Decider, compiled: Compiled | None, *, changed: bool, passed: Compiled | None = None
) -> Outcome:
    """Run the policies on the way to a handler that have not been asked yet, from the outside in; `compiled` last.

    After a change all are asked; `passed` is what has let the request through with other facts, in the place of
    `compiled`. Header fields that are said anew replace those that were said of other facts; cookies stay, each of
    them is one.
    """
    before = connection.effects
    if changed:
        connection.effects = []
    outcome = await _ask_layers(connection, changed=changed)
    if outcome is None and compiled is not None:
        outcome = await connection.decide(compiled, passed=passed)
    if changed:
        anew = {name for name, _ in connection.effects} - {b"set-cookie"}
        connection.effects = [pair for pair in before if pair[0] not in anew] + connection.effects
    return outcome


async def _ask_layers(connection: Decider, *, changed: bool) -> Outcome:
    for layer in connection.layers:
        if changed or not layer.asked:
            outcome = await connection.decide(layer.compiled, passed=layer.compiled if layer.asked else None)
            if outcome is not None:
                return outcome
            layer.asked = True
    return None


def _keep_facts(connection: Decider, scope: Scope) -> None:
    """Keep the facts of a scope, to compare with what a middleware below passes on.

    Where a middleware before this has passed on others already, the facts from before it stay, so that the route below
    finds the change (attack: an X-HTTP-Method-Override in the middleware of a marked application).
    """
    seen, watched = connection.request, connection.watched
    if watched is None:
        method = scope["method"] if seen.kind == "http" else seen.method
        same = seen.scope is scope and seen.raw_headers == scope["headers"] and seen.method == method
    else:
        same = watched.holds(scope)
    if same:
        connection.watched = Seen(scope)


async def run_below(connection: Decider, layer: Layer, proceed: App, wire: tuple[Scope, Receive, Send]) -> None:
    """Run what is below a layer: its policy is one of those that hold there, and nowhere else."""
    before = connection.layers, connection.above, connection.watched
    connection.layers = (*connection.layers, layer)
    connection.above = connection.above or layer.compiled.decides
    _keep_facts(connection, wire[0])
    try:
        await proceed(*wire)
    finally:
        connection.layers, connection.above, connection.watched = before
