"""Policies of the guarded applications around one that has a guard of its own: they are asked about what that gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.protection.guard.capture import Capture
from routeguard.protection.guard.layers import ask_all, has_changed

if TYPE_CHECKING:
    from routeguard.protection.guard.asgi import Connection, Scope, Send


async def passes_outside(connection: Connection, scope: Scope, send: Send) -> bool:
    """Ask the policies around a mounted application again where a middleware has passed on other facts.

    False where one of them has refused, and its answer was sent. The inner guard has a connection of its own, which
    knows nothing of the mount's policy (attack: an X-HTTP-Method-Override between a marked mount and the application
    in it, or in the middleware of that).
    """
    around, outer = [], connection.outer
    while outer is not None:
        around.append(outer)
        outer = outer.outer
    for each in reversed(around):
        if not each.layers or not has_changed(each, scope):
            continue
        observed = each.observer
        outcome = await ask_all(each, None, changed=True)
        if outcome is not None:
            await connection.answer(outcome, each.layers[-1].compiled.handler, send)
            return False
        if each.observer is not None and each.observer is not observed:
            connection.write = Capture(each, connection.write)
    return True
