"""The outermost ASGI layer. No decision, no response.

It opens the exchange, lets no success out of an application that never decided, and turns whatever breaks while
deciding into a refusal. The broad `except`s of the package are here and in `decider.py`.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from routeguard.core.errors import ConfigError, ProblemError, Unavailable
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.problem import (
    CONTENT_TOO_LARGE,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
)
from routeguard.protection.guard.asgi import BodyTooLarge, Connection
from routeguard.protection.guard.capture import Capture
from routeguard.protection.guard.decider import cannot_tell
from routeguard.protection.guard.facts import Seen
from routeguard.protection.guard.layers import ask_all
from routeguard.protection.guard.outside import passes_outside
from routeguard.protection.guard.runs import Run
from routeguard.protection.guard.transport import refuse_framing

if TYPE_CHECKING:
    from routeguard.protection.guard.asgi import App, Message, Receive, Scope, Send
    from routeguard.protection.guard.guard import Compiled, Guard


async def enter(
    connection: Connection,
    compiled: Compiled | None,
    proceed: App,
    wire: tuple[Scope, Receive, Send],
    *,
    changed: bool = False,
    passed: Compiled | None = None,
) -> None:
    """Decide, then run the handler or answer in its place. `proceed` is the framework's own next step.

    `compiled` is None for a handler that leaves the decision to what stands around it. `changed` says that this was
    asked about other facts; `passed` is the policy that was, in the place of `compiled`.
    """
    scope, receive, send = wire
    handler = "" if compiled is None else compiled.handler
    try:
        if changed or connection.layers:
            outcome = await ask_all(connection, compiled, changed=changed, passed=passed)
        else:
            outcome = None if compiled is None else await connection.decide(compiled)
        if outcome is not None:
            await connection.answer(outcome, handler, send)
        else:
            if connection.observer is not None:
                send = Capture(connection, send)
            await proceed(scope, receive, send)
    except BodyTooLarge:
        # Here and not at the edge: the application's middleware sees the refusal, and its CORS headers let the page
        # that sent the body read why it was refused.
        await connection.refuse(CONTENT_TOO_LARGE(), handler, send)
    except ProblemError as error:
        await connection.refuse(error.problem, handler, send)
    except Unavailable as error:
        await connection.refuse(cannot_tell(error), handler, send)
    finally:
        try:
            if connection.observer is not None:
                await connection.release()
        finally:
            if connection.ended is not None:
                await connection.end()


Start: TypeAlias = "Callable[[bool], Awaitable[Run | None]]"
"""Starts what serves the running event loop, and returns it. Told whether a lifespan asks, which will also stop it."""


class Edge:
    """ASGI: ``Edge(guard, app)`` around a whole application, outermost."""

    def __init__(self, guard: Guard, app: App, *, start: Start, stop: Callable[[], Awaitable[None]]) -> None:
        self.guard = guard
        self.app = app
        self._start = start
        self._stop = stop
        self._entered: tuple[Run, Guard] | None = None
        """The services that served the last request, and the guard over them."""
        self._guards = [guard]
        self.plain = False
        """Whether no middleware of the application can change a request before its routes see it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        entered = self._entered
        ready = entered is not None and entered[0].loop is _get_running_loop()
        guard = entered[1] if entered is not None else self.guard
        connection = Connection(guard, scope, receive, send)
        # Overwrites whatever stands there: markers of ours are never taken from outside (attack AZ-07).
        scope[SCOPE_KEY] = connection
        if not self.plain:
            connection.watched = Seen(scope)
        try:
            if not ready:
                connection.guard = await self._enter(lifespan=False)
            _refuse_unreadable(connection)
            app = self.app if connection.outer is None else partial(_serve_inside, connection, self.app)
            await app(scope, connection.receive, connection.send)
        except BodyTooLarge:
            if not connection.started:
                await connection.refuse(CONTENT_TOO_LARGE())
        except ProblemError as error:
            await connection.refuse(error.problem)
        except Unavailable as error:
            await connection.refuse(cannot_tell(error))
        except Exception:
            if not connection.started:
                await connection.refuse(INTERNAL_ERROR())
            # A handler whose stream was ended was told that its client has gone, and raised that.
            if not connection.stream_ended:
                raise
        finally:
            scope[SCOPE_KEY] = connection.outer
            connection.leave()

    async def _enter(self, *, lifespan: bool) -> Guard:
        """Start what serves the running event loop, and return the guard over it."""
        run = await self._start(lifespan)
        if run is None:
            run = Run(self.guard.services)
            run.loop = _get_running_loop()
        guard = next((one for one in self._guards if one.services is run.services), None)
        if guard is None:
            guard = replace(self.guard, services=run.services)
            self._guards.append(guard)
        self._entered = (run, guard)
        return guard

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start before the application does and stop after it; a finding at start-up is a failed start."""

        async def starting() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._enter(lifespan=True)
                except Exception as error:
                    # Servers take an exception alone for "no lifespan here" and would serve unverified: say it.
                    findings = str(error) if isinstance(error, ConfigError) else type(error).__name__
                    await send({"type": "lifespan.startup.failed", "message": findings})
                    raise
            return message

        stopped = False

        async def stop() -> None:
            nonlocal stopped
            if not stopped:
                stopped = True
                await self._stop()

        async def stopping(message: Message) -> None:
            if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                # Before it is said: a server that hears it ends the process, and what was not yet written is lost.
                await stop()
            await send(message)

        try:
            await self.app(scope, starting, stopping)
        finally:
            await stop()


async def _serve_inside(connection: Connection, app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve an application that is mounted in a guarded one."""
    if await passes_outside(connection, scope, send):
        await app(scope, receive, send)


def _refuse_unreadable(connection: Connection) -> None:
    """Refuse what no route should see. Raises ProblemError."""
    request = connection.request
    headers = request.headers
    # Before any route is looked for: a request hidden in the body would be answered after a 404, too.
    if (b"content-length" in headers or b"transfer-encoding" in headers) and (problem := refuse_framing(request)):
        connection.hold_to(problem)
    # No resource is called so, and PostgreSQL takes no such text: it would be a 500.
    if "\0" in request.path:
        raise MALFORMED_REQUEST(debug="NUL in the path").error()
