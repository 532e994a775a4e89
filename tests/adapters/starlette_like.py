"""What Starlette and FastAPI share beyond the common suite: their route objects, classes and middleware."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from routeguard.core.errors import Unavailable
from routeguard.core.marks import policy_of
from routeguard.core.policy import Policy, public
from routeguard.core.problem import PERMISSION_DENIED
from routeguard.protection.adapters.starlette.hook import hook_routes
from routeguard.protection.adapters.starlette.listing import entries
from routeguard.protection.guard.matrix import matrix, verify
from tests.conformance.wire import ADMIN, KEY, Does, Limit, Spy, admin, connect, key, send


async def secret(request: Request) -> Response:
    return PlainTextResponse("secret", headers={"x-canary": "1"})


class StarletteLike:
    """Shared by both frameworks; `make` as in the suite."""

    make: Any

    def findings(self, app: Any) -> list[str]:
        hook_routes()
        return verify(app.guard, entries(app.guard, app.app), undecided_is_fatal=True)

    async def test_partials_and_decorators(self) -> None:
        app = self.make()

        async def takes(request: Request, extra: str = "") -> Response:
            return await secret(request)

        def wrapped(handler: Any) -> Any:
            @functools.wraps(handler)
            async def run(request: Request) -> Response:
                return await handler(request)  # type: ignore[no-any-return]

            return run

        def opaque(handler: Any) -> Any:
            async def run(request: Request) -> Response:
                return await handler(request)  # type: ignore[no-any-return]

            return run

        def fresh() -> Any:
            async def handler(request: Request) -> Response:
                return await secret(request)

            return handler

        guard = app.guard(key)
        routes = {
            "/partial": functools.partial(guard(takes), extra="x"),
            "/partial-twice": functools.partial(functools.partial(guard(takes)), extra="x"),
            "/wraps-outside": wrapped(guard(fresh())),
            "/wraps-inside": guard(wrapped(fresh())),
            "/opaque-inside": guard(opaque(fresh())),
        }
        for path, endpoint in routes.items():
            app.app.router.routes.append(Route(path, endpoint))
        app.install()
        for path in routes:
            refused = await send(app.asgi(), path=path)
            passed = await send(app.asgi(), path=path, headers=[KEY])
            assert (refused.status, passed.status) == (401, 200), path
        # A decorator that hides the mark hides the decision: refused, never open. Nothing starts with it.
        app.app.router.routes.append(Route("/opaque-outside", opaque(guard(fresh()))))
        assert len(self.findings(app)) == 1
        assert (await send(app.asgi(), path="/opaque-outside", headers=[KEY])).status == 500

    def test_marking_changes_nothing_else(self) -> None:
        app = self.make()

        async def handler(request: Request, number: int = 1) -> Response:
            """Words."""
            return await secret(request)

        before = inspect.signature(handler), handler.__doc__, handler.__name__
        assert app.guard(key)(handler) is handler
        assert (inspect.signature(handler), handler.__doc__, handler.__name__) == before
        assert policy_of(app.guard(admin)(handler)) == key & admin

    def test_an_attribute_called_func_is_not_the_handler(self) -> None:
        class Job:
            func = staticmethod(self.make().guard(public)(lambda request: None))

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                return None

        assert policy_of(Job()) is None

    async def test_middleware_sees_refusals_as_answers(self, caplog: pytest.LogCaptureFixture) -> None:
        app = self.make()
        seen: list[int] = []

        async def watch(request: Request, call_next: Any) -> Response:
            response = await call_next(request)
            seen.append(response.status_code)
            response.headers["x-watched"] = "1"
            return response  # type: ignore[no-any-return]

        app.app.add_middleware(BaseHTTPMiddleware, dispatch=watch)
        app.app.add_middleware(GZipMiddleware, minimum_size=1)
        app.route("/key", Spy(), key)
        app.route("/limited", Spy(), public & Policy.of(Limit(1)), methods=["POST"])
        app.route("/reads", Reads(), public & Policy.of(Limit(1)), methods=["POST"])
        app.route("/raises", Raises(PERMISSION_DENIED().error()), public)
        app.install()
        asgi = app.asgi()
        for method, path, status in (
            ("GET", "/key", 401),
            ("POST", "/limited", 413),
            ("GET", "/raises", 403),
            ("GET", "/missing", 404),
        ):
            result = await send(asgi, method, path, [(b"content-length", b"5")] if method == "POST" else [])
            assert (result.status, result.header("x-watched"), result.error) == (status, "1", None)
        assert seen == [401, 413, 403, 404]
        chunked = await send(asgi, "POST", "/reads", body=[b"12", b"34"])
        assert (chunked.status, chunked.canary) == (413, False)
        zipped = await send(asgi, path="/key", headers=[(b"accept-encoding", b"gzip")])
        assert (zipped.status, zipped.header("content-encoding")) == (401, "gzip")
        assert (await send(asgi, path="/key", headers=[KEY])).canary

    @pytest.mark.parametrize("change", ["scope", "method", "headers"])
    async def test_the_policy_sees_what_the_handler_sees(self, change: str) -> None:
        """A middleware that copies the scope or renames the method: path parameters and method are the handler's."""
        app = self.make()
        seen: list[Any] = []

        class Override:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "http" and change == "scope":
                    scope = dict(scope)
                elif scope["type"] == "http" and change == "method":
                    scope["method"] = "DELETE"
                elif scope["type"] == "http":
                    scope["headers"] = [*scope["headers"], (b"x-added", b"1")]
                await self.app(scope, receive, send)

        async def look(exchange: Any) -> None:
            request = exchange.request
            seen.append((request.method, request.is_safe, dict(request.path_params), request.header("x-added")))

        app.route("/things/{thing}", Spy(), Policy.of(Does(look)), methods=["PUT", "DELETE"])
        app.app.add_middleware(Override)
        app.install()
        assert (await send(app.asgi(), "PUT", "/things/7")).canary
        due = ("DELETE" if change == "method" else "PUT", False, {"thing": "7"}, "1" if change == "headers" else None)
        assert seen == [due]

    async def test_way_to_https_and_trusted_hosts(self) -> None:
        app = self.make()
        app.route("/x", Spy(), key)
        app.app.add_middleware(HTTPSRedirectMiddleware)
        app.app.add_middleware(TrustedHostMiddleware, allowed_hosts=["good.example"], www_redirect=False)
        app.install()
        moved = await send(app.asgi(), path="/x", headers=[(b"host", b"good.example")])
        assert (moved.status, moved.header("location")) == (307, "https://good.example/x")
        assert (await send(app.asgi(), path="/x", headers=[(b"host", b"evil.example")])).status == 400
        secure = await send(app.asgi(), path="/x", headers=[(b"host", b"good.example")], scheme="https")
        assert secure.status == 401

    @pytest.mark.parametrize(
        "location",
        ["https://evil.example/x", "http://testserver/y", "//evil.example/", "/y", "https://testserver/y", ""],
    )
    async def test_undecided_redirects_do_not_leave(self, location: str) -> None:
        class Redirects:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                await Response(status_code=307, headers={"location": location})(scope, receive, send)

        app = self.make()
        app.app.add_middleware(Redirects)
        app.install()
        result = await send(app.asgi(), path="/x", headers=[(b"host", b"testserver")])
        assert (result.status, result.header("location")) == (500, None)

    async def test_websocket_class(self) -> None:
        ran: list[str] = []

        class Echo(WebSocketEndpoint):
            async def on_receive(self, websocket: WebSocket, data: Any) -> None:
                ran.append(data)
                await websocket.send_text(data)

        class Unmarked(Echo):
            pass

        app = self.make()
        app.app.router.routes.append(WebSocketRoute("/unmarked", Unmarked))
        app.guard(key)(Echo)
        app.app.router.routes.append(WebSocketRoute("/ws", Echo))
        app.install()
        assert (await connect(app.asgi(), "/ws")).status == 401
        assert [m["type"] for m in (await connect(app.asgi(), "/ws", [KEY])).sent][:2] == [
            "websocket.accept",
            "websocket.send",
        ]
        # A class made from a marked one carries the mark.
        assert (await connect(app.asgi(), "/unmarked")).status == 401
        assert ran == ["hello"]

    @pytest.mark.parametrize(
        ("error", "code"), [(PERMISSION_DENIED().error(), 1008), (Unavailable("store"), 1011)], ids=["no", "broken"]
    )
    async def test_an_open_websocket_is_closed_by_a_refusal(self, error: Exception, code: int) -> None:
        """WS-05: a handler that finds out later that it may not go on."""

        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            raise error

        app = self.make()
        app.app.router.routes.append(WebSocketRoute("/ws", app.guard(key)(handler)))
        app.install()
        result = await connect(app.asgi(), "/ws", [KEY])
        assert [m["type"] for m in result.sent] == ["websocket.accept", "websocket.close"]
        assert result.sent[1]["code"] == code

    @pytest.mark.parametrize("denial", [True, False])
    async def test_a_handlers_own_denial(self, denial: bool) -> None:
        """WS-08: no message that the server does not know."""

        async def handler(websocket: WebSocket) -> None:
            await websocket.receive()
            await JSONResponse({"a": 1}, 403)(websocket.scope, websocket.receive, websocket._send)

        app = self.make()
        app.app.router.routes.append(WebSocketRoute("/ws", app.guard(key)(handler)))
        app.install()
        result = await connect(app.asgi(), "/ws", [KEY], denial=denial)
        kinds = {m["type"] for m in result.sent}
        assert kinds == (
            {"websocket.http.response.start", "websocket.http.response.body"} if denial else {"websocket.close"}
        )

    async def test_host_routing(self) -> None:
        app = self.make()
        inner = Router([Route("/x", app.guard(key)(secret_copy())), Route("/unmarked", secret_copy())])
        app.app.router.routes.append(Host("api.example", app=inner))
        app.app.router.routes.append(Host("admin.example", app=app.guard(admin)(Router([Route("/x", secret_copy())]))))
        app.install()
        api, ours = (b"host", b"api.example"), (b"host", b"admin.example:80")
        assert (await send(app.asgi(), path="/x", headers=[api])).status == 401
        assert (await send(app.asgi(), path="/x", headers=[api, KEY])).canary
        assert (await send(app.asgi(), path="/unmarked", headers=[api, KEY])).status == 500
        assert (await send(app.asgi(), path="/x", headers=[ours, KEY])).status == 403
        assert (await send(app.asgi(), path="/x", headers=[ours, ADMIN])).canary
        # Starlette 1.0 knows only the spelling of the code, later versions every one.
        assert (await send(app.asgi(), path="/x", headers=[(b"host", b"ADMIN.example"), KEY])).status in {403, 404}

    async def test_static_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("secret")
        app = self.make()
        app.app.mount("/marked", app.guard(key)(StaticFiles(directory=tmp_path)))
        app.app.mount("/open", app.guard(public)(StaticFiles(directory=tmp_path)))
        app.app.mount("/unmarked", StaticFiles(directory=tmp_path))
        app.install()
        assert (await send(app.asgi(), path="/marked/a.txt")).status == 401
        read = await send(app.asgi(), path="/marked/a.txt", headers=[KEY])
        assert (read.body, read.header("cache-control")) == (b"secret", "private, no-store")
        assert (await send(app.asgi(), path="/marked/../open/a.txt")).status in {401, 404}
        assert (await send(app.asgi(), path="/open/a.txt")).body == b"secret"
        assert b"secret" not in (await send(app.asgi(), path="/unmarked/a.txt")).body

    async def test_route_classes_with_a_handle_of_their_own(self) -> None:
        class Own(Route):
            async def handle(self, scope: Any, receive: Any, send: Any) -> None:
                await PlainTextResponse("secret", headers={"x-canary": "1"})(scope, receive, send)

        app = self.make()
        app.app.router.routes += [Own("/marked", app.guard(key)(secret_copy())), Own("/unmarked", secret_copy())]
        app.install()
        assert (await send(app.asgi(), path="/marked")).status == 401
        assert (await send(app.asgi(), path="/marked", headers=[KEY])).canary
        assert (await send(app.asgi(), path="/unmarked", headers=[KEY])).status == 500

        class Late(Route):
            async def handle(self, scope: Any, receive: Any, send: Any) -> None:
                await PlainTextResponse("secret", headers={"x-canary": "1"})(scope, receive, send)

        app.app.router.routes += [Late("/late", app.guard(key)(secret_copy())), Late("/late-unmarked", secret_copy())]
        assert (await send(app.asgi(), path="/late")).status == 401
        assert (await send(app.asgi(), path="/late", headers=[KEY])).canary
        assert (await send(app.asgi(), path="/late-unmarked", headers=[KEY])).status == 500

    async def test_a_handle_that_was_replaced_is_a_finding(self) -> None:
        async def own(scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("secret")(scope, receive, send)

        class Replaced(Route):
            pass

        app = self.make()
        app.install()
        assert (await send(app.asgi(), path="/missing")).status == 404
        Replaced.handle = lambda self, *wire: own(*wire)  # type: ignore[method-assign]
        of_object = Route("/object", app.guard(key)(secret_copy()))
        of_object.handle = own  # type: ignore[method-assign]
        app.app.router.routes += [Replaced("/class", app.guard(key)(secret_copy())), of_object]
        found = verify(app.guard, entries(app.guard, app.app), undecided_is_fatal=True)
        assert [line.split(" (")[0] for line in found if "`handle` was replaced" in line] == ["* /class", "* /object"]
        # Not asked before it runs, but no answer leaves without a decision.
        assert (await send(app.asgi(), path="/class")).problem == "guard-not-applied"

    async def test_a_kind_of_route_nobody_knows_is_refused(self) -> None:
        class Own(BaseRoute):
            def __init__(self, path: str, endpoint: Any) -> None:
                self.path, self.endpoint = path, endpoint

            def matches(self, scope: Any) -> Any:
                return (Match.FULL, {}) if scope["path"] == self.path else (Match.NONE, {})

            async def handle(self, scope: Any, receive: Any, send: Any) -> None:
                await (await self.endpoint(Request(scope)))(scope, receive, send)

        app = self.make()
        app.guard.default = public
        app.install()
        assert (await send(app.asgi(), path="/missing")).status == 404
        app.app.router.routes.insert(0, Own("/own", app.guard(key)(secret_copy())))
        refused = await send(app.asgi(), path="/own", headers=[KEY])
        assert (refused.problem, refused.canary) == ("guard-not-applied", False)
        assert any("kind of route is not known" in line for line in self.findings(app))

    def test_a_router_with_a_default_of_its_own_is_a_finding(self) -> None:
        app = self.make()

        async def fallback(scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("secret")(scope, receive, send)

        app.app.mount("/m", Router(default=fallback))
        assert any("default" in line for line in self.findings(app))

    async def test_matrix_shows_what_is_enforced(self) -> None:
        app = self.make()
        app.route("/open", Spy(), public)
        router = app.router()
        app.route("/marked", Spy(), admin, at=router)
        app.route("/unmarked", Spy(), at=router)
        app.mount("/m", router, key)
        app.classed("/c", {"GET": (Spy(), key), "QUERY": (Spy(), None)}, admin)
        app.guard.default = admin
        app.route("/default", Spy())
        own = self.make()
        own.route("/x", Spy())
        own.install()
        app.mount("/own", own.asgi())
        app.install()
        rows = {
            (row.method, row.path): (row.policy, row.source) for row in matrix(app.guard, entries(app.guard, app.app))
        }
        assert rows == {
            ("GET", "/open"): ("public", "mark"),
            ("GET", "/m/marked"): ("key x-key, key x-admin", "mark"),
            ("GET", "/m/unmarked"): ("key x-key", "mark"),
            ("GET", "/c"): ("key x-admin, key x-key", "mark"),
            ("QUERY", "/c"): ("key x-admin", "mark"),
            ("GET", "/default"): ("key x-admin", "default"),
        }

    async def test_application_error_handlers_stay(self) -> None:
        app = self.make()

        async def teapot(request: Request, error: Exception) -> Response:
            return PlainTextResponse("mine", 418)

        app.app.add_exception_handler(500, teapot)
        app.app.add_exception_handler(404, teapot)
        app.route("/x", Raises(RuntimeError()), public)
        app.install()
        assert (await send(app.asgi(), path="/x")).body == b"mine"
        assert (await send(app.asgi(), path="/missing")).body == b"mine"

    async def test_a_handlers_redirect_is_its_own(self) -> None:
        async def moves(request: Request) -> Response:
            return RedirectResponse("https://other.example/x", 307)

        app = self.make()
        app.app.router.routes.append(Route("/x", app.guard(key)(moves)))
        app.install()
        assert (await send(app.asgi(), path="/x", headers=[KEY])).header("location") == "https://other.example/x"
        assert (await send(app.asgi(), path="/x")).header("location") is None

    @pytest.mark.parametrize("method", ["PURGE", "purge", "TRACE", "DISPATCH", "HELPER", "METHOD_NOT_ALLOWED"])
    @pytest.mark.parametrize("mounted", [False, True])
    async def test_an_invented_method_runs_no_method_of_a_class(self, method: str, mounted: bool) -> None:
        """Starlette 1.0 calls whatever attribute of the class is called as the method of the request."""
        ran: list[str] = []

        class Plain(HTTPEndpoint):
            async def get(self, request: Request) -> Response:
                return await secret(request)

            async def head(self, request: Request) -> Response:
                return await secret(request)

            async def purge(self, request: Request) -> Response:
                ran.append("purge")
                return await secret(request)

            helper = trace = purge

        class Polite(Plain):
            def method_not_allowed(self, request: Request) -> Response:
                ran.append("polite")
                return PlainTextResponse("not so", 405)

        app = self.make()
        app.guard(key)(Polite)
        for path, kind in (("/plain", Plain), ("/polite", Polite)):
            app.guard(key)(kind.get)
            app.app.router.routes.append(Mount(path, app=kind) if mounted else Route(path, kind))
        app.install()
        tail = "/x" if mounted else ""
        assert (await send(app.asgi(), path="/plain" + tail)).status == 401
        refused = await send(app.asgi(), method, "/plain" + tail)
        assert (refused.status, refused.problem, refused.canary) == (405, "method-not-allowed", False)
        assert "GET" in (refused.header("allow") or "")
        assert (await send(app.asgi(), method, "/polite" + tail)).status == 401
        assert ran == []
        asked = await send(app.asgi(), method, "/polite" + tail, [KEY])
        assert (asked.status, asked.canary, ran) == (405, False, ["polite"])

    async def test_same_class_method_marks_by_inheritance(self) -> None:
        app = self.make()

        class Base(HTTPEndpoint):
            @app.guard(key)
            async def get(self, request: Request) -> Response:
                return await secret(request)

        class Child(Base):
            async def get(self, request: Request) -> Response:
                return await secret(request)

        app.app.router.routes += [Route("/base", Base), Route("/child", Child)]
        app.install()
        assert (await send(app.asgi(), path="/base", headers=[KEY])).canary
        # Overriding a method drops its mark: refused until it is marked again.
        assert (await send(app.asgi(), path="/child", headers=[KEY])).status == 500

    async def test_starlette_application_mounted_without_a_guard(self) -> None:
        app = self.make()
        inner = Starlette(routes=[Route("/x", app.guard(key)(secret_copy())), Route("/unmarked", secret_copy())])
        app.app.mount("/sub", inner)
        app.install()
        assert (await send(app.asgi(), path="/sub/x")).status == 401
        assert (await send(app.asgi(), path="/sub/x", headers=[KEY])).canary
        assert (await send(app.asgi(), path="/sub/unmarked", headers=[KEY])).status == 500


class Reads:
    async def __call__(self, call: Any) -> Any:
        from tests.conformance.wire import Answer

        return Answer(await call.body(), headers=(("x-canary", "1"),))


class Raises:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def __call__(self, call: Any) -> Any:
        raise self.error


def secret_copy() -> Any:
    """Return a new handler, so that marks do not meet."""

    async def handler(request: Request) -> Response:
        return await secret(request)

    return handler
