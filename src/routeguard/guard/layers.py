"""Policies of what stands around a handler: mounts, mounted applications and routers that carry one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.core.request import RequestView

if TYPE_CHECKING:
    from routeguard.core.check import Outcome
    from routeguard.guard.connection import App, Connection, Receive, Scope, Send
    from routeguard.guard.guard import Compiled


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


def look_again(connection: Connection, scope: Scope) -> None:
    """Take the facts anew. What was found by other headers belongs to another request, perhaps another caller."""
    before = connection.request
    connection.request = RequestView(scope)
    if before.raw_headers is not scope["headers"] and before.raw_headers != scope["headers"]:
        connection.facts.clear()
        connection.principal = None


async def ask_layers(connection: Connection) -> Outcome:
    """Run the policies around a handler that have not been asked yet, from the outside in."""
    for layer in connection.layers:
        if not layer.asked:
            outcome = await connection.decide(layer.compiled)
            if outcome is not None:
                return outcome
            layer.asked = True
    return None


async def run_below(
    connection: Connection, layer: Layer, proceed: App, wire: tuple[Scope, Receive, Send]
) -> None:  # fmt: skip
    """Run what is below a layer: its policy is one of those that hold there, and nowhere else."""
    before = connection.layers, connection.above
    connection.layers = (*connection.layers, layer)
    connection.above = connection.above or layer.compiled.decides
    try:
        await proceed(*wire)
    finally:
        connection.layers, connection.above = before
