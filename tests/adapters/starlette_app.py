"""The adapter suite's words in Starlette and FastAPI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import anyio.from_thread
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from routeguard.core.errors import ConfigError
from routeguard.core.services import Services
from routeguard.protection.adapters.fastapi.errors import answer_fastapi_errors
from routeguard.protection.adapters.starlette.errors import answer_errors
from routeguard.protection.adapters.starlette.hook import hook_routes, wrap
from routeguard.protection.adapters.starlette.listing import entries
from routeguard.protection.guard.edge import Edge
from routeguard.protection.guard.guard import Guard
from routeguard.protection.guard.matrix import verify
from tests.conformance.wire import Call, key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routeguard.core.policy import Policy
    from tests.conformance.wire import Answer, Handler


class StarletteApp:
    """`AppUnderTest` for Starlette."""

    name = "starlette"
    marks = True

    def __init__(self) -> None:
        self.guard = Guard(Services())
        self.app: Any = self.empty()
        self.prefixes: dict[int, str] = {}

    def empty(self) -> Any:
        return Starlette()

    # -- handlers -----------------------------------------------------------------------------------------------------

    def native(self, handler: Handler, *, sync: bool = False) -> Any:
        async def asynchronous(request: Request) -> Response:
            return respond(await handler(Call(request.scope, request.body)))

        def synchronous(request: Request) -> Response:
            return respond(anyio.from_thread.run(cast("Any", handler), Call(request.scope, request.body)))

        return synchronous if sync else asynchronous

    def marked(self, handler: Any, policy: Policy | None) -> Any:
        return handler if policy is None or not self.marks else self.guard(policy)(handler)

    def guard_with_key(self, handler: Any) -> Any:
        return self.marked(handler, key)

    def route(
        self,
        path: str,
        handler: Handler,
        policy: Policy | None = None,
        *,
        methods: Sequence[str] = ("GET",),
        at: Any = None,
        sync: bool = False,
    ) -> None:
        self.add(at or self.app.router, path, self.marked(self.native(handler, sync=sync), policy), methods)

    def add(self, router: Any, path: str, endpoint: Any, methods: Sequence[str]) -> None:
        router.routes.append(Route(path, endpoint, methods=list(methods)))

    def websocket(self, path: str, policy: Policy | None = None, *, at: Any = None) -> list[str]:
        ran: list[str] = []

        async def echo(websocket: WebSocket) -> None:
            ran.append(path)
            await websocket.accept()
            try:
                while True:
                    await websocket.send_text(await websocket.receive_text())
            except WebSocketDisconnect:
                return

        self.add_websocket(at or self.app.router, path, self.marked(echo, policy))
        return ran

    def add_websocket(self, router: Any, path: str, endpoint: Any) -> None:
        router.routes.append(WebSocketRoute(path, endpoint))

    def classed(
        self, path: str, methods: dict[str, tuple[Handler, Policy | None]], policy: Policy | None = None
    ) -> None:
        def method(handler: Handler, own: Policy | None) -> Any:
            async def run(self: Any, request: Request) -> Response:
                return respond(await handler(Call(request.scope, request.body)))

            return self.marked(run, own)

        members = {name.lower(): method(handler, own) for name, (handler, own) in methods.items()}
        self.app.add_route(path, self.marked(type("Classed", (HTTPEndpoint,), members), policy))

    # -- composition --------------------------------------------------------------------------------------------------

    def router(self, prefix: str = "") -> Any:
        router = Router()
        self.prefixes[id(router)] = prefix
        return router

    def include(self, router: Any, *, prefix: str = "", at: Any = None) -> None:
        (at or self.app.router).routes.append(Mount(prefix + self.prefixes[id(router)], app=router))

    def mount(self, path: str, app: Any, policy: Policy | None = None, *, at: Any = None) -> None:
        (at or self.app.router).routes.append(Mount(path, app=self.marked(app, policy)))

    def raises_http(self, status: int, headers: dict[str, str] | None = None) -> Exception:
        return HTTPException(status, "said by the handler", headers)

    def cors(self, origin: str) -> None:
        self.app.add_middleware(CORSMiddleware, allow_origins=[origin], allow_methods=["*"])

    def install(self, *, mode: Any = "enforce", started: list[Any] | None = None) -> None:
        self.guard.mode = mode

        async def start(lifespan: bool) -> None:
            if started is not None:
                started.append(lifespan)
            fatal = lifespan and mode == "enforce"
            if findings := verify(self.guard, entries(self.guard, self.app), undecided_is_fatal=fatal):
                raise ConfigError(findings)

        async def stop() -> None:
            if started is not None:
                started.append(None)

        hook_routes()
        self.errors()
        wrap(self.app, lambda app: Edge(self.guard, app, start=start, stop=stop))

    def errors(self) -> None:
        answer_errors(self.app)

    def asgi(self) -> Any:
        return self.app


class FastAPIApp(StarletteApp):
    """`AppUnderTest` for FastAPI."""

    name = "fastapi"

    def empty(self) -> Any:
        return FastAPI(openapi_url=None)

    def add(self, router: Any, path: str, endpoint: Any, methods: Sequence[str]) -> None:
        router.add_api_route(path, endpoint, methods=list(methods), response_model=None)

    def add_websocket(self, router: Any, path: str, endpoint: Any) -> None:
        router.add_api_websocket_route(path, endpoint)

    def router(self, prefix: str = "") -> Any:
        return APIRouter(prefix=prefix)

    def include(self, router: Any, *, prefix: str = "", at: Any = None) -> None:
        (at or self.app).include_router(router, prefix=prefix)

    def errors(self) -> None:
        answer_fastapi_errors(self.app)


def respond(answer: Answer) -> Response:
    background = BackgroundTask(answer.background) if answer.background is not None else None
    response: Response
    if answer.stream is not None:
        response = StreamingResponse(answer.stream, answer.status, background=background)
    else:
        response = Response(answer.body, answer.status, background=background)
    for name, value in answer.headers:
        response.headers.append(name, value)
    return response
