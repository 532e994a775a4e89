"""What every framework adapter must do, said once.

`AdapterSuite` is subclassed for each framework with an `AppUnderTest`: a few words for declaring handlers in that
framework. Every refusal is shown together with its twin: the same application without the guard, which answers.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from routeguard.core.decision import Reply
from routeguard.core.errors import Unavailable
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.policy import Policy, deferred, public
from routeguard.core.problem import PERMISSION_DENIED
from tests.conformance.wire import (
    ADMIN,
    KEY,
    SPELLINGS,
    Answer,
    AppUnderTest,
    Call,
    Does,
    Limit,
    ReadsBody,
    Result,
    Spy,
    Unbindable,
    admin,
    connect,
    key,
    life,
    send,
)

Build = Callable[[AppUnderTest], None]
NAVIGATION = ((b"accept", b"text/html,*/*"), (b"sec-fetch-mode", b"navigate"))


class AdapterSuite:
    """The suite. `make(guarded)` gives an empty application; guarded ones have the guard installed at `finish`."""

    make: Any
    """Makes an empty `AppUnderTest`."""

    def pair(self, build: Build, *, default: Policy | None = None, **install: Any) -> tuple[Any, Any]:
        """Return the same application with the guard, and with neither guard nor marks."""
        guarded, bare = self.make(), self.make()
        bare.marks = False
        guarded.guard.default = default
        build(guarded)
        build(bare)
        guarded.install(**install)
        return guarded.asgi(), bare.asgi()

    def guarded(self, build: Build, *, default: Policy | None = None, **install: Any) -> Any:
        app = self.make()
        app.guard.default = default
        build(app)
        app.install(**install)
        return app.asgi()

    async def decides(
        self,
        build: Build,
        path: str = "/x",
        method: str = "GET",
        *,
        good: Sequence[tuple[bytes, bytes]] = (KEY,),
        status: int = 401,
    ) -> None:
        """Show that it is the guard who decides: refused without the key, passed with it, open in the twin."""
        guarded, bare = self.pair(build)
        refused = await send(guarded, method, path)
        assert refused.status == status, refused.body
        assert refused.received == 0
        assert not refused.canary
        assert b"secret" not in refused.body
        passed = await send(guarded, method, path, good)
        assert (passed.status, passed.canary) == (200, True), passed.body
        twin = await send(bare, method, path)
        assert (twin.status, twin.canary) == (200, True), twin.body

    # -- before the handler -----------------------------------------------------------------------------------------

    async def test_refuses_before_a_byte_of_the_body(self) -> None:
        spies: list[Spy] = []

        def build(app: AppUnderTest) -> None:
            spies.append(Spy())
            app.route("/x", spies[-1], key, methods=["POST"])

        guarded, bare = self.pair(build)
        refused = await send(guarded, "POST", "/x", body=b"hello")
        assert (refused.status, refused.received, refused.problem) == (401, 0, "authentication-required")
        assert spies[0].ran == []
        assert (await send(bare, "POST", "/x", body=b"hello")).status == 200

    async def test_malformed_json_of_an_anonymous_caller_is_401(self) -> None:
        app = self.guarded(lambda app: app.route("/x", Spy(), key, methods=["POST"]))
        result = await send(app, "POST", "/x", [(b"content-type", b"application/json")], b"{bad")
        assert (result.status, result.received) == (401, 0)

    @pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
    async def test_plain_and_sync_handlers(self, sync: bool) -> None:
        await self.decides(lambda app: app.route("/x", Spy(), key, sync=sync))

    async def test_public_and_unmarked(self) -> None:
        """AZ-13: no policy, no answer; the handler never runs."""
        spy = Spy()

        def build(app: AppUnderTest) -> None:
            app.route("/open", Spy(), public)
            app.route("/unmarked", spy)

        guarded, bare = self.pair(build)
        assert (await send(guarded, path="/open")).canary
        refused = await send(guarded, path="/unmarked", headers=[KEY])
        assert (refused.status, refused.problem, spy.ran) == (500, "guard-not-applied", [])
        assert (await send(bare, path="/unmarked")).canary

    async def test_default_applies_to_the_unmarked_only(self) -> None:
        def build(app: AppUnderTest) -> None:
            app.route("/unmarked", Spy())
            app.route("/open", Spy(), public)

        app = self.guarded(build, default=key)
        assert (await send(app, path="/unmarked")).status == 401
        assert (await send(app, path="/unmarked", headers=[KEY])).canary
        assert (await send(app, path="/open")).canary

    # -- however deep, whenever added ---------------------------------------------------------------------------------

    async def test_included_nested_prefixed(self) -> None:
        def build(app: AppUnderTest) -> None:
            outer, inner = app.router("/outer"), app.router("/inner")
            app.route("/x", Spy(), key, at=inner)
            app.include(inner, prefix="/more", at=outer)
            app.include(outer, prefix="/api")

        await self.decides(build, "/api/outer/more/inner/x")

    async def test_included_after_install(self) -> None:
        app = self.make()
        app.install()
        router = app.router("/r")
        app.route("/marked", Spy(), key, at=router)
        app.route("/unmarked", Spy(), at=router)
        app.include(router)
        assert (await send(app.asgi(), path="/r/marked")).status == 401
        assert (await send(app.asgi(), path="/r/marked", headers=[KEY])).canary
        assert (await send(app.asgi(), path="/r/unmarked", headers=[KEY])).status == 500

    async def test_added_after_the_first_request(self) -> None:
        """AZ-13: late routes, late routers and a late route inside a router that is included already."""
        app = self.make()
        app.install()
        router = app.router("/r")
        app.route("/first", Spy(), public, at=router)
        app.include(router)
        assert (await send(app.asgi(), path="/r/first")).canary
        app.route("/late", Spy(), key)
        app.route("/late-unmarked", Spy())
        app.route("/late", Spy(), key, at=router)
        app.route("/late-unmarked", Spy(), at=router)
        for prefix in ("", "/r"):
            assert (await send(app.asgi(), path=f"{prefix}/late")).status == 401
            assert (await send(app.asgi(), path=f"{prefix}/late", headers=[KEY])).canary
            unmarked = await send(app.asgi(), path=f"{prefix}/late-unmarked", headers=[KEY])
            assert (unmarked.status, unmarked.canary) == (500, False)

    async def test_a_late_policy_that_cannot_be_bound_is_refused(self) -> None:
        app = self.make()
        app.route("/fine", Spy(), public)
        app.install()
        assert (await send(app.asgi(), path="/fine")).canary
        app.route("/x", Spy(), Policy.of(Unbindable()))
        assert (await send(app.asgi(), path="/x")).problem == "guard-not-applied"

    async def test_mounted_routes(self) -> None:
        def build(app: AppUnderTest) -> None:
            router = app.router()
            app.route("/x", Spy(), key, at=router)
            app.mount("/m", router)

        await self.decides(build, "/m/x")

    async def test_mounted_application_of_another_make(self) -> None:
        """A bare ASGI application has one policy for all that is in it, or none and is refused."""
        ran: list[str] = []

        async def foreign(scope: Any, receive: Any, sender: Any) -> None:
            ran.append(scope["path"])
            await sender({"type": "http.response.start", "status": 200, "headers": [(b"x-canary", b"1")]})
            await sender({"type": "http.response.body", "body": b"secret"})

        class Foreign:
            """Has `routes`, as other frameworks' applications have, and is no router of ours."""

            def __init__(self) -> None:
                self.routes: list[Any] = []

            async def __call__(self, scope: Any, receive: Any, sender: Any) -> None:
                await foreign(scope, receive, sender)

        def build(app: AppUnderTest) -> None:
            app.mount("/marked", Foreign(), key)
            app.mount("/unmarked", Foreign())

        await self.decides(build, "/marked/x")
        guarded, bare = self.pair(build)
        ran.clear()
        assert (await send(guarded, path="/unmarked/x", headers=[KEY])).problem == "guard-not-applied"
        assert (
            await send(guarded, "OPTIONS", "/unmarked/x", [(b"access-control-request-method", b"GET")])
        ).status == 500
        assert ran == []
        assert (await send(bare, path="/unmarked/x")).canary

    async def test_mount_policy_and_inner_marks_both_hold(self) -> None:
        def build(app: AppUnderTest) -> None:
            router = app.router()
            app.route("/marked", Spy(), admin, at=router)
            app.route("/open", Spy(), public, at=router)
            app.route("/unmarked", Spy(), at=router)
            app.mount("/m", router, key)

        guarded, bare = self.pair(build)
        for path in ("/m/marked", "/m/open", "/m/unmarked"):
            assert (await send(guarded, path=path, headers=[ADMIN])).status == 401, path
            assert (await send(bare, path=path)).canary
        assert (await send(guarded, path="/m/marked", headers=[KEY])).status == 403
        assert (await send(guarded, path="/m/marked", headers=[KEY, ADMIN])).canary
        open_ = await send(guarded, path="/m/open", headers=[KEY])
        assert (open_.canary, open_.header("cache-control")) == (True, "private, no-store")
        assert (await send(guarded, path="/m/unmarked", headers=[KEY])).canary

    async def test_a_marked_mount_decides_for_the_unmarked_not_the_default(self) -> None:
        def build(app: AppUnderTest) -> None:
            router = app.router()
            app.route("/x", Spy(), at=router)
            app.mount("/open", router, public)

        assert (await send(self.guarded(build, default=key), path="/open/x")).canary

    async def test_one_router_under_two_policies(self) -> None:
        """What one way decided is never used on another."""

        def build(app: AppUnderTest) -> None:
            router = app.router()
            app.route("/x", Spy(), at=router)
            app.mount("/key", self.shared(app, router), key)
            app.mount("/admin", self.shared(app, router), admin)
            app.mount("/none", self.shared(app, router))

        app = self.guarded(build)
        for _ in range(2):
            assert (await send(app, path="/key/x", headers=[KEY])).canary
            assert (await send(app, path="/key/x", headers=[ADMIN])).status == 401
            assert (await send(app, path="/admin/x", headers=[ADMIN])).canary
            assert (await send(app, path="/admin/x", headers=[KEY])).status == 403
            assert (await send(app, path="/none/x", headers=[KEY, ADMIN])).status == 500

    async def test_the_default_on_one_way_is_not_the_mounts_policy_on_another(self) -> None:
        def build(app: AppUnderTest) -> None:
            router = app.router()
            app.route("/x", Spy(), at=router)
            app.mount("/default", self.shared(app, router))
            app.mount("/open", self.shared(app, router), public)

        app = self.guarded(build, default=key)
        for _ in range(2):
            assert (await send(app, path="/default/x")).status == 401
            assert (await send(app, path="/open/x")).canary

    def shared(self, app: AppUnderTest, router: Any) -> Any:
        """Return another router that holds the very same routes."""
        other = app.router()
        app.include(router, at=other)
        return other

    async def test_mount_limit_binds_what_is_inside(self) -> None:
        def build(app: AppUnderTest) -> None:
            router = app.router()
            app.route("/x", Spy(), public, methods=["POST"], at=router)
            app.route("/more", Spy(), public & Policy.of(Limit(100)), methods=["POST"], at=router)
            app.mount("/m", router, key & Policy.of(Limit(10)))

        app = self.guarded(build)
        for path in ("/m/x", "/m/more"):
            declared = [KEY, (b"content-length", b"11")]
            assert (await send(app, "POST", path, declared, b"a" * 11)).status == 413
            assert (await send(app, "POST", path, [KEY, (b"content-length", b"10")], b"a" * 10)).canary

    async def test_application_with_a_guard_of_its_own(self) -> None:
        def build(app: AppUnderTest) -> None:
            inner = self.make()
            inner.guard.default = key
            inner.guard.body_limit = 2_000_000
            inner.route("/x", Spy())
            inner.route("/big", Reader(), public, methods=["POST"])
            inner.route("/fails", raiser(RuntimeError("secret")), public)
            inner.install()
            app.mount("/sub", inner.asgi())

        app = self.guarded(build)
        assert (await send(app, path="/sub/x")).status == 401
        assert (await send(app, path="/sub/x", headers=[KEY])).canary
        assert (await send(app, path="/sub/nothing", headers=[KEY])).status == 404
        assert (await send(app, "POST", "/sub/big", body=b"a" * 1_500_000)).body == b"1500000"
        assert (await send(app, "POST", "/sub/big", body=b"a" * 2_000_001)).status == 413
        assert (await send(app, path="/sub/fails")).problem == "internal-error"

    async def test_three_guards_deep(self) -> None:
        def build(app: AppUnderTest) -> None:
            middle, inner = self.make(), self.make()
            inner.route("/x", Spy(), key)
            inner.install()
            middle.mount("/b", inner.asgi())
            middle.install()
            app.mount("/a", middle.asgi())

        app = self.guarded(build)
        assert (await send(app, path="/a/b/x", headers=[KEY])).canary
        assert (await send(app, path="/a/b/x")).status == 401

    # -- methods ------------------------------------------------------------------------------------------------------

    async def test_class_with_a_policy_for_each_method(self) -> None:
        """AZ-06."""
        spy = Spy()

        def build(app: AppUnderTest) -> None:
            app.classed("/c", {"GET": (Spy(), public), "POST": (Spy(), key), "PUT": (spy, None)})
            app.classed("/both", {"GET": (Spy(), key)}, admin)

        app = self.guarded(build)
        assert (await send(app, "GET", "/c")).canary
        assert (await send(app, "HEAD", "/c")).status == 200
        assert (await send(app, "POST", "/c")).status == 401
        assert (await send(app, "POST", "/c", [KEY])).canary
        assert (await send(app, "PUT", "/c", [KEY])).problem == "guard-not-applied"
        assert spy.ran == []
        for method in ("DELETE", "FOO", "DISPATCH", "METHOD_NOT_ALLOWED", "__CLASS__"):
            refused = await send(app, method, "/c", [KEY])
            assert (refused.status, refused.canary) == (405, False), method
        # Class and method: marks add up.
        assert (await send(app, "GET", "/both", [KEY])).status == 403
        assert (await send(app, "GET", "/both", [ADMIN])).status == 401
        assert (await send(app, "GET", "/both", [KEY, ADMIN])).canary

    @pytest.mark.parametrize("method", ["POST", "OPTIONS", "TRACE", "CONNECT", "FOO", "get", "", "A" * 1_000_000])
    async def test_undeclared_methods_are_405(self, method: str) -> None:
        """HTTP-11."""
        spy = Spy()
        app = self.guarded(lambda app: app.route("/x", spy, public))
        result = await send(app, method, "/x", [KEY])
        assert (result.status, result.problem, spy.ran) == (405, "method-not-allowed", [])
        assert "GET" in (result.header("allow") or "")

    @pytest.mark.parametrize("method", ["DELETE", "PUT", "FOO"])
    async def test_every_declared_method_is_guarded(self, method: str) -> None:
        await self.decides(lambda app: app.route("/x", Spy(), key, methods=[method]), method=method)

    async def test_head_is_guarded_and_has_no_body(self) -> None:
        def build(app: AppUnderTest) -> None:
            app.route("/x", Spy(), key, methods=["GET", "HEAD"])

        app = self.guarded(build)
        refused = await send(app, "HEAD", "/x")
        assert (refused.status, refused.body) == (401, b"")
        assert (await send(app, "HEAD", "/x", [KEY])).status == 200

    # -- paths --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("path", SPELLINGS, ids=ascii)
    async def test_no_spelling_of_a_path_opens_it(self, path: str) -> None:
        """AZ-09: the same verdict as the path itself, or none; whatever the framework makes of it."""

        def build(app: AppUnderTest) -> None:
            app.route("/admin", Spy(), admin)
            app.route("/x", Spy(), public)
            inner = app.router()
            app.route("/admin", Spy(), admin, at=inner)
            app.mount("/m", inner)

        app = self.guarded(build)
        for prefix in ("", "/m"):
            result = await send(app, path=prefix + path, headers=[(b"host", b"testserver")])
            assert not result.canary
            assert result.status in {307, 403, 404}, result.status
            if result.status == 307:
                location = result.header("location") or ""
                assert location.startswith("/")
                assert not location.startswith(("//", "/\\"))

    @pytest.mark.parametrize(
        "headers",
        [
            [(b"x-forwarded-prefix", b"/open")],
            [(b"x-original-url", b"/open"), (b"x-rewrite-url", b"/open")],
            [(b"x-middleware-subrequest", b"middleware:middleware")],
            [(SCOPE_KEY.encode(), b"allow")],
            [(b"x-routeguard-decision", b"allow"), (b"x-routeguard", b"1")],
            [(b"x-http-method-override", b"GET")],
        ],
        ids=["prefix", "rewrite", "nextjs", "scope-key", "decision", "override"],
    )
    async def test_markers_from_outside_mean_nothing(self, headers: list[tuple[bytes, bytes]]) -> None:
        """AZ-07, HTTP-05."""

        def build(app: AppUnderTest) -> None:
            app.route("/x", Spy(), key)
            app.route("/open", Spy(), public)

        guarded, bare = self.pair(build)
        assert (await send(guarded, path="/x", headers=headers)).status == 401
        assert (await send(bare, path="/x", headers=headers)).canary

    @pytest.mark.parametrize("root", ["/base", "/x", "/", "//", "/x/x"])
    async def test_root_path_changes_no_verdict(self, root: str) -> None:
        """HTTP-05, AZ-24."""
        app = self.guarded(lambda app: app.route("/x", Spy(), key))
        for path in ("/x", root + "/x", root):
            result = await send(app, path=path, root_path=root)
            assert result.status in {401, 404, 307}
            assert not result.canary

    async def test_slash_redirect_keeps_only_its_path(self) -> None:
        app = self.guarded(lambda app: app.route("/x/", Spy(), key))
        result = await send(app, path="/x", headers=[(b"host", b"evil.example")], query_string=b"a=1")
        assert (result.status, result.header("location")) == (307, "/x/?a=1")

    # -- transport ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "name", [b"authorization", b"content-length", b"x-api-key", b"content-type", b"origin", b"host"]
    )
    async def test_doubled_headers_are_400(self, name: bytes) -> None:
        """HTTP-01."""
        guarded, bare = self.pair(lambda app: app.route("/x", Spy(), public))
        twice = [(name, b"1"), (b"accept", b"*/*"), (name, b"1")]
        assert (await send(guarded, path="/x", headers=twice)).problem == "malformed-request"
        assert (await send(guarded, path="/x", headers=twice[:2])).canary
        assert (await send(bare, path="/x", headers=twice)).canary

    @pytest.mark.parametrize("value", [b"\xe9", "\u20ac".encode(), b"\x00", b"\x7f", b"a\rb", b"\xff\xfe"])
    async def test_header_bytes_are_opaque(self, value: bytes) -> None:
        """HTTP-13: no 500 from bytes that are not text."""
        app = self.guarded(lambda app: app.route("/x", Spy(), key))
        headers = [(b"x-other", value), (b"cookie", value), (b"accept", value)]
        assert (await send(app, path="/x", headers=[(b"x-key", value)])).status == 401
        assert (await send(app, path="/x", headers=[KEY, *headers])).status == 200
        assert (await send(app, path="/x", headers=headers)).status == 401

    @pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
    async def test_declared_length_over_the_limit(self, method: str) -> None:
        """BODY-01, BODY-20, HTTP-15: 413 before anything is read."""
        guarded, bare = self.pair(
            lambda app: app.route("/x", Reader(), public & Policy.of(Limit(10)), methods=[method])
        )
        over = [(b"content-length", b"11"), (b"expect", b"100-continue")]
        result = await send(guarded, method, "/x", over, b"a" * 11)
        assert (result.status, result.received, result.problem) == (413, 0, "content-too-large")
        at = await send(guarded, method, "/x", [(b"content-length", b"10")], b"a" * 10)
        assert (at.status, at.body) == (200, b"10")
        assert (await send(bare, method, "/x", over, b"a" * 11)).body == b"11"

    @pytest.mark.parametrize(
        "length", [b"", b"-1", b"+1", b"1_0", b"0x10", b"1,1", b"9" * 30, b" 1", "\u0661".encode()]
    )
    async def test_content_length_that_is_no_number(self, length: bytes) -> None:
        app = self.guarded(lambda app: app.route("/x", Spy(), public, methods=["POST"]))
        assert (await send(app, "POST", "/x", [(b"content-length", length)])).status == 400

    @pytest.mark.parametrize("declared", [None, b"3"], ids=["chunked", "lying"])
    async def test_counted_over_the_limit(self, declared: bytes | None) -> None:
        """BODY-01: 413 wins over what the framework makes of the interrupted read."""
        reader = Reader()
        app = self.guarded(lambda app: app.route("/x", reader, public & Policy.of(Limit(10)), methods=["POST"]))
        headers = [(b"content-length", declared)] if declared else []
        result = await send(app, "POST", "/x", headers, [b"a" * 5, b"a" * 5, b"a", b"a" * 100])
        assert (result.status, result.problem, result.received) == (413, "content-too-large", 3)
        assert result.complete
        assert not result.canary

    async def test_413_wins_over_a_handler_that_swallows(self) -> None:
        async def swallows(call: Call) -> Answer:
            try:
                await call.body()
            except Exception:
                return Answer(b"fine", headers=(("x-canary", "1"),))
            return Answer()

        app = self.guarded(lambda app: app.route("/x", swallows, public & Policy.of(Limit(10)), methods=["POST"]))
        result = await send(app, "POST", "/x", body=[b"a" * 20])
        assert (result.status, result.canary) == (413, False)

    async def test_guard_and_handler_read_the_same_bytes(self) -> None:
        """BODY-21."""
        seen: list[bytes] = []

        async def handler(call: Call) -> Answer:
            seen.append(await call.body())
            seen.append(call.scope[SCOPE_KEY].facts[ReadsBody])
            return Answer()

        app = self.guarded(lambda app: app.route("/x", handler, public & Policy.of(ReadsBody()), methods=["POST"]))
        data = [bytes(range(256)), b"", b"\x00\xff" * 1000]
        assert (await send(app, "POST", "/x", body=data)).status == 200
        assert seen == [b"".join(data)] * 2

    async def test_half_a_body_is_no_body(self) -> None:
        """HTTP-10: the client leaves while the policy reads; the handler does not run."""
        spy = Spy()
        app = self.guarded(lambda app: app.route("/x", spy, public & Policy.of(ReadsBody()), methods=["POST"]))
        first = {"type": "http.request", "body": b"half", "more_body": True}
        result = await send(app, "POST", "/x", body=[first])
        assert (result.status, spy.ran) == (400, [])

    async def test_client_leaves_while_the_handler_reads(self) -> None:
        app = self.guarded(lambda app: app.route("/x", Reader(), public, methods=["POST"]))
        half = await send(app, "POST", "/x", body=[{"type": "http.request", "body": b"half", "more_body": True}])
        assert (half.status, half.error, half.canary) == (400, None, False)
        assert (await send(app, "POST", "/x", body=b"whole")).body == b"5"

    # -- policies that break ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("answer", "status"),
        [
            (True, 500),
            (False, 500),
            (1, 500),
            (0, 500),
            ("yes", 500),
            ({}, 500),
            (Exception, 500),
            (public, 500),
            (RuntimeError("secret"), 500),
            (TimeoutError(), 503),
            (Unavailable("store", retry_after=7), 503),
            (KeyError("user"), 500),
            (PERMISSION_DENIED().error(), 403),
            (PERMISSION_DENIED(), 403),
        ],
        ids=repr,
    )
    async def test_whatever_a_policy_answers_but_none_refuses(
        self, answer: Any, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """AZ-16: deny, and say so in the log."""

        async def run(exchange: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        spy = Spy()
        with caplog.at_level(logging.INFO, "routeguard.guard"):
            app = self.guarded(lambda app: app.route("/x", spy, key & Policy.of(Does(run))))
            result = await send(app, path="/x", headers=[KEY])
        assert (result.status, spy.ran) == (status, [])
        assert result.problem
        assert b"secret" not in result.body
        assert caplog.records
        if status == 503:
            assert result.header("retry-after") == ("7" if isinstance(answer, Unavailable) else "2")

    async def test_a_check_that_is_not_async_refuses(self) -> None:
        app = self.guarded(lambda app: app.route("/x", Spy(), Policy.of(Does(lambda _: None))))
        assert (await send(app, path="/x")).status == 500

    async def test_a_reply_answers_in_the_handlers_place(self) -> None:
        async def run(exchange: Any) -> Reply:
            return Reply(200, ((b"x-replayed", b"1"), (b"cache-control", b"public, max-age=60")), b"again")

        spy = Spy()
        app = self.guarded(lambda app: app.route("/x", spy, key & Policy.of(Does(run))))
        result = await send(app, path="/x", headers=[KEY])
        assert (result.status, result.body, spy.ran) == (200, b"again", [])
        assert result.header("cache-control") == "private, no-store"

    async def test_deferred(self) -> None:
        """A handler that decides in its body and forgets to is a 500, below a mount that decided as well."""

        def build(app: AppUnderTest) -> None:
            app.route("/forgets", Spy(), deferred)
            router = app.router()
            app.route("/forgets", Spy(), deferred, at=router)
            app.mount("/m", router, public)

        guarded, bare = self.pair(build)
        for path in ("/forgets", "/m/forgets"):
            result = await send(guarded, path=path, headers=[KEY])
            assert (result.problem, result.canary) == ("guard-not-applied", False)
            assert b"secret" not in result.body
            assert (await send(bare, path=path)).canary

    # -- caching ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("said", "due"),
        [
            (None, "private, no-store"),
            ("public, max-age=60", "private, no-store"),
            ("max-age=60", "private, no-store"),
            ("PUBLIC", "private, no-store"),
            ("private, public", "private, no-store"),
            ("private, s-maxage=9", "private, no-store"),
            ('private="set-cookie"', "private, no-store"),
            ("no-cache", "private, no-store"),
            ("x-private", "private, no-store"),
            ("private, max-age=60", "private, max-age=60"),
            ("Private", "Private"),
            ("no-store", "no-store"),
            ("no-cache, no-store, must-revalidate", "no-cache, no-store, must-revalidate"),
        ],
    )
    async def test_guarded_answers_are_never_shared(self, said: str | None, due: str) -> None:
        """AZ-23."""
        headers = (
            ("cache-control", said or ""),
            ("cdn-cache-control", "max-age=60"),
            ("surrogate-control", "max-age=60"),
        )
        answer = Answer(headers=headers if said else ())

        def build(app: AppUnderTest) -> None:
            app.route("/x", Spy(answer), key)
            app.route("/open", Spy(answer), public)
            app.route("/limited", Spy(answer), public & Policy.of(Limit(5)))
            app.route("/either", Spy(answer), public | key)

        app = self.guarded(build)
        either = await send(app, path="/either", headers=[KEY])
        assert (either.canary, either.header("cache-control")) == (True, due)
        result = await send(app, path="/x", headers=[KEY])
        assert (result.canary, result.header("cache-control")) == (True, due)
        assert (await send(app, path="/limited")).header("cache-control") == said
        assert result.header("cdn-cache-control") is None
        assert result.header("surrogate-control") is None
        open_ = await send(app, path="/open")
        assert open_.header("cache-control") == said
        assert (await send(app, path="/x")).header("cache-control") == "private, no-store"

    async def test_one_401_whatever_the_cause(self) -> None:
        """ENUM-01: the bytes differ in the instance only."""
        app = self.guarded(lambda app: app.route("/x", Spy(), key))
        seen = set()
        for value in (None, b"", b"wrong", b"\xff", b"a" * 5000):
            result = await send(app, path="/x", headers=[(b"x-key", value)] if value is not None else [])
            body = json.loads(result.body)
            assert body.pop("instance")
            seen.add((json.dumps(body), tuple(result.headers), len(result.body)))
        assert len(seen) == 1

    # -- browsers -----------------------------------------------------------------------------------------------------

    async def test_browsers_are_sent_to_sign_in(self) -> None:
        app = self.make()
        app.guard.sign_in = "/auth/sign-in"
        app.route("/x", Spy(), key, methods=["GET", "POST"])
        app.install()
        asgi = app.asgi()
        page = await send(asgi, path="/x", headers=NAVIGATION, query_string=b"a=1&b=%26")
        assert (page.status, page.header("location")) == (303, "/auth/sign-in?next=/x%3Fa%3D1%26b%3D%2526")
        assert page.header("cache-control") == "private, no-store"
        base = await send(asgi, path="/base/x", headers=NAVIGATION, root_path="/base")
        assert base.header("location") == "/base/auth/sign-in?next=/base/x"
        for headers in (
            [],
            [(b"accept", b"application/json")],
            [(b"accept", b"*/*")],
            [NAVIGATION[0], (b"sec-fetch-mode", b"cors")],
        ):
            assert (await send(asgi, path="/x", headers=headers)).status == 401
        assert (await send(asgi, "POST", "/x", NAVIGATION)).status == 401
        assert (await send(asgi, path="/x", headers=[KEY, *NAVIGATION])).canary

    # -- what handlers do ---------------------------------------------------------------------------------------------

    async def test_streams_and_background_work(self) -> None:
        done: list[str] = []

        async def stream() -> AsyncIterator[bytes]:
            for part in (b"one", b"two"):
                yield part

        async def after() -> None:
            done.append("after")

        async def fails() -> None:
            raise RuntimeError("in the background")

        def build(app: AppUnderTest) -> None:
            app.route("/stream", lambda call: _answer(Answer(stream=stream())), key)
            app.route("/after", Spy(Answer(background=after)), key)
            app.route("/fails", Spy(Answer(background=fails)), key)

        app = self.guarded(build)
        streamed = await send(app, path="/stream", headers=[KEY])
        assert (streamed.body, streamed.complete) == (b"onetwo", True)
        assert [m.get("body") for m in streamed.sent[1:3]] == [b"one", b"two"]
        assert (await send(app, path="/after")).status == 401
        assert done == []
        assert (await send(app, path="/after", headers=[KEY])).canary
        assert done == ["after"]
        failed = await send(app, path="/fails", headers=[KEY])
        assert (failed.status, failed.body, failed.complete) == (200, b"secret", True)

    async def test_exceptions(self) -> None:
        """HTTP-17, HTTP-19: generic words, and the next request is served."""
        app = self.make()
        app.route("/broken", raiser(RuntimeError("secret")), public)
        app.route("/refuses", raiser(PERMISSION_DENIED().error()), public)
        app.route("/store", raiser(Unavailable("secret store", retry_after=9)), public)
        app.route("/teapot", raiser(app.raises_http(418, {"x-tea": "1"})), public)
        app.route("/fine", Spy(), public)
        app.install()
        asgi = app.asgi()
        broken = await send(asgi, path="/broken")
        assert (broken.status, broken.problem) == (500, "internal-error")
        assert b"secret" not in broken.body
        assert (await send(asgi, path="/refuses")).problem == "permission-denied"
        store = await send(asgi, path="/store")
        assert (store.status, store.header("retry-after"), b"secret" in store.body) == (503, "9", False)
        teapot = await send(asgi, path="/teapot")
        assert (teapot.status, teapot.header("x-tea"), bool(teapot.problem)) == (418, "1", True)
        missing = await send(asgi, path="/missing")
        assert (missing.status, missing.problem) == (404, "not-found")
        assert (await send(asgi, path="/fine")).canary

    @pytest.mark.parametrize("error", [RuntimeError("secret"), PERMISSION_DENIED().error(), Unavailable("x")], ids=repr)
    async def test_exception_after_the_start_appends_nothing(self, error: Exception) -> None:
        """HTTP-16: the answer stays incomplete, so that the server aborts the connection."""

        async def stream() -> AsyncIterator[bytes]:
            yield b"one"
            raise error

        app = self.guarded(lambda app: app.route("/x", lambda call: _answer(Answer(stream=stream())), public))
        result = await send(app, path="/x")
        assert (result.status, result.body, result.complete) == (200, b"one", False)
        assert [m["type"] for m in result.sent].count("http.response.start") == 1

    async def test_headers_set_by_policies(self) -> None:
        """HTTP-03: control characters are a ValueError where they are set, never a second header."""
        values = [b"a\r\nset-cookie: x=1", b"a\nb", b"a\x00b", b"a\rb"]
        refused: list[bytes] = []

        async def run(exchange: Any) -> None:
            exchange.add_header(b"x-effect", b"1")
            for value in values:
                with pytest.raises(ValueError, match="control"):
                    exchange.add_header(b"x-effect", value)
                refused.append(value)

        app = self.guarded(lambda app: app.route("/x", Spy(), Policy.of(Does(run)) & admin))
        assert (await send(app, path="/x", headers=[ADMIN])).header("x-effect") == "1"
        assert (await send(app, path="/x")).header("x-effect") is None or refused
        assert refused[:4] == values

    async def test_problem_headers_cannot_be_injected(self) -> None:
        app = self.make()
        app.route("/x", raiser(app.raises_http(400, {"x-said": "a\r\nset-cookie: x=1"})), public)
        app.install()
        result = await send(app.asgi(), path="/x")
        assert result.status == 500
        assert not any(b"\n" in value or b"\r" in value for _, value in result.headers)

    async def test_interleaved_requests_do_not_mix(self) -> None:
        """HTTP-21: some thousands, each waiting in the policy and in the handler."""
        var: contextvars.ContextVar[str] = contextvars.ContextVar("who")

        async def run(exchange: Any) -> None:
            who = exchange.request.headers[b"x-who"].decode()
            var.set(who)
            await asyncio.sleep(0)
            exchange.facts["who"] = who
            exchange.add_header(b"x-fact", who.encode())

        async def handler(call: Call) -> Answer:
            await asyncio.sleep(0)
            own = dict(call.scope["headers"])[b"x-who"].decode()
            await asyncio.sleep(0)
            assert own == call.scope[SCOPE_KEY].facts["who"] == var.get()
            return Answer(own.encode())

        app = self.guarded(lambda app: app.route("/x", handler, public & Policy.of(Does(run))))
        for start in range(0, 3000, 500):
            numbers = [str(n).encode() for n in range(start, start + 500)]
            results = await asyncio.gather(*(send(app, path="/x", headers=[(b"x-who", n)]) for n in numbers))
            assert [result.body for result in results] == numbers
            assert [(result.header("x-fact") or "").encode() for result in results] == numbers

    # -- WebSockets ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("denial", [True, False], ids=["denial", "close"])
    async def test_websockets_are_refused_before_accept(self, denial: bool) -> None:
        """AZ-14, WS-08."""
        app, bare = self.make(), self.make()
        ran = app.websocket("/ws", key)
        unmarked = app.websocket("/unmarked")
        router = app.router("/r")
        nested = app.websocket("/ws", key, at=router)
        app.include(router)
        bare.websocket("/ws")
        app.install()
        for path, status in (("/ws", 401), ("/r/ws", 401), ("/unmarked", 500)):
            result = await connect(app.asgi(), path, denial=denial)
            assert result.received == 0
            if denial:
                assert (result.sent[0]["type"], result.status) == ("websocket.http.response.start", status)
                assert result.problem
            else:
                assert [m["type"] for m in result.sent] == ["websocket.close"]
                assert result.sent[0]["code"] == 1008
        assert ran == unmarked == nested == []
        for path in ("/ws", "/r/ws"):
            opened = await connect(app.asgi(), path, [KEY], denial=denial)
            assert [m["type"] for m in opened.sent][:2] == ["websocket.accept", "websocket.send"]
        assert (await connect(bare.asgi(), "/ws")).sent[0]["type"] == "websocket.accept"
        missing = await connect(app.asgi(), "/missing", denial=denial)
        assert missing.sent[0]["type"] in {"websocket.close", "websocket.http.response.start"}
        assert missing.error is None

    # -- life ---------------------------------------------------------------------------------------------------------

    async def test_a_failed_start_lists_everything_at_once(self) -> None:
        def build(app: AppUnderTest) -> None:
            app.route("/fine", Spy(), key)
            app.route("/unmarked", Spy())
            app.route("/bad", Spy(), Policy.of(Unbindable()))
            app.websocket("/unmarked-ws")
            router = app.router("/r")
            app.route("/unmarked", Spy(), at=router)
            app.include(router)
            app.mount("/foreign", _foreign)

        sent = await life(self.guarded(build))
        assert sent[0]["type"] == "lifespan.startup.failed"
        message = sent[0]["message"]
        for part in (
            "GET /unmarked",
            "first finding",
            "second finding",
            "WS /unmarked-ws",
            "GET /r/unmarked",
            "MOUNT /foreign",
        ):
            assert part in message, message
        assert "/fine" not in message

    async def test_a_good_start_and_a_lazy_one(self) -> None:
        started: list[bool] = []

        def build(app: AppUnderTest) -> None:
            app.route("/x", Spy(), key)

        app = self.guarded(build, started=started)
        assert (await send(app, path="/x")).status == 401
        assert started == [False]
        await send(app, path="/x")
        assert started == [False]
        assert [m["type"] for m in await life(app)] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert started == [False, True, None]

    async def test_install_after_the_first_request_or_twice(self) -> None:
        app = self.make()
        app.route("/x", Spy(), key)
        await send(app.asgi(), path="/x")
        with pytest.raises(RuntimeError, match="before"):
            app.install()
        twice = self.make()
        twice.install()
        with pytest.raises(RuntimeError, match="already"):
            twice.install()

    async def test_observe_mode_refuses_nothing_and_logs_all(self, caplog: pytest.LogCaptureFixture) -> None:
        async def breaks(exchange: Any) -> None:
            raise RuntimeError

        def build(app: AppUnderTest) -> None:
            app.route("/key", Spy(), key)
            app.route("/unmarked", Spy())
            app.route("/breaks", Spy(), Policy.of(Does(breaks)))
            app.route("/deferred", Spy(), deferred)
            app.route("/limit", Spy(), Policy.of(Limit(1)), methods=["POST"])
            app.mount("/foreign", _foreign)
            app.websocket("/ws", key)

        app = self.guarded(build, mode="observe")
        with caplog.at_level(logging.INFO, "routeguard.guard"):
            for path in ("/key", "/unmarked", "/breaks", "/deferred", "/foreign/x"):
                caplog.clear()
                assert (await send(app, path=path)).canary, path
                assert any("would be refused" in record.getMessage() for record in caplog.records), path
            for headers in ([(b"content-length", b"5")], []):
                assert (await send(app, "POST", "/limit", headers, b"aaaaa")).canary
            caplog.clear()
            assert (await connect(app, "/ws")).sent[0]["type"] == "websocket.accept"
            assert "would be refused" in caplog.text
            caplog.clear()
            assert (await send(app, path="/key", headers=[KEY])).canary
            assert "would be refused" not in caplog.text

    async def test_preflight_of_the_applications_own_cors(self) -> None:
        app = self.make()
        app.route("/x", Spy(), key, methods=["PUT"])
        app.cors("https://app.example")
        app.install()
        asked = [(b"origin", b"https://app.example"), (b"access-control-request-method", b"PUT")]
        result = await send(app.asgi(), "OPTIONS", "/x", asked)
        assert (result.status, result.header("access-control-allow-origin")) == (200, "https://app.example")
        refused = await send(app.asgi(), "PUT", "/x", asked[:1])
        assert (refused.status, refused.header("access-control-allow-origin")) == (401, "https://app.example")


class Reader:
    """A handler that reads the body and answers its length."""

    async def __call__(self, call: Call) -> Answer:
        return Answer(str(len(await call.body())).encode())


def raiser(error: Exception) -> Any:
    """Return a handler that raises `error`."""

    async def handler(call: Call) -> Answer:
        raise error

    return handler


async def _answer(answer: Answer) -> Answer:
    return answer


async def _foreign(scope: Any, receive: Any, sender: Any) -> None:
    await sender({"type": "http.response.start", "status": 200, "headers": [(b"x-canary", b"1")]})
    await sender({"type": "http.response.body", "body": b"secret"})


__all__ = ["AdapterSuite", "Result"]
