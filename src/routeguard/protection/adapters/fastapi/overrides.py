"""An override of the guard's values is solved by FastAPI itself, so that it may be whatever a dependency may be."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from fastapi import Depends
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.websockets import WebSocket

from routeguard.protection.adapters.starlette.handlers import effective

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from routeguard.protection.guard.asgi import Connection, Message, Scope


async def solve(connection: Connection, provider: Any, *, call: Any, name: str) -> Any:
    """Let FastAPI run the override of `call`, whose name in messages is `name`.

    Its generators end after the answer, as those of a handler do.
    """

    def take(value: Any) -> Any:
        return value

    take.__defaults__ = (Depends(call),)
    scope: Any = connection.request.scope
    path: str = getattr(effective(connection.current, scope), "path_format", "")
    if _takes_body(get_dependant(path=path, call=provider.dependency_overrides[call])):
        raise TypeError(f"the override of {name} takes the body of the request, which is read after the decision")
    stack = _stack_of(connection)
    solved = await solve_dependencies(
        request=_request(connection, stack),
        dependant=get_dependant(path=path, call=take),
        dependency_overrides_provider=provider,
        async_exit_stack=stack,
        embed_body_fields=False,
    )
    if solved.errors:
        raise RequestValidationError(solved.errors)
    return solved.values["value"]


def _takes_body(dependant: Any) -> bool:
    return bool(dependant.body_params) or any(map(_takes_body, dependant.dependencies))


def _stack_of(connection: Connection) -> AsyncExitStack:
    """Return what ends an override that is a generator, once the request is answered."""
    stack, before = AsyncExitStack(), connection.ended

    async def ended(status: int | None) -> None:
        try:
            await stack.aclose()
        finally:
            if before is not None:
                await before(status)

    connection.ended = ended
    return stack


def _request(connection: Connection, stack: AsyncExitStack) -> Any:
    """Return the request for an override. What that reads of the body is kept for the handler."""
    scope: Scope = {
        **connection.request.scope,
        "fastapi_inner_astack": stack,
        "fastapi_function_astack": stack,
    }
    read = False

    async def receive() -> Message:
        nonlocal read
        if read or connection.read_body is None:
            return {"type": "http.disconnect"}
        read = True
        return {"type": "http.request", "body": await connection.read_body(), "more_body": False}

    async def send(message: Message) -> None:
        raise RuntimeError(f"an override says who is calling before the request is answered ({message['type']})")

    made: HTTPConnection = (
        Request(scope, receive, send) if connection.request.kind == "http" else WebSocket(scope, receive, send)
    )
    return made
