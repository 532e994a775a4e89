"""The edge alone, around bare ASGI applications."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest

from routeguard.core.decision import ALLOW, Refuse, Reply
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.exchange import SCOPE_KEY, Captured
from routeguard.core.policy import Policy, deferred, public
from routeguard.core.problem import CONTENT_TOO_LARGE, NOT_FOUND, PERMISSION_DENIED
from routeguard.core.request import RequestView
from routeguard.core.services import Services
from routeguard.protection.guard.asgi import Connection
from routeguard.protection.guard.edge import Edge, enter
from routeguard.protection.guard.framework import answered_by_framework
from routeguard.protection.guard.guard import Guard
from routeguard.protection.guard.transport import transport
from tests.conformance.wire import KEY, Does, Limit, connect, key, life, send

COVERS = (
    "protection/guard/asgi",
    "protection/guard/capture",
    "protection/guard/framework",
    "protection/guard/log",
    "protection/guard/transport",
)

pytestmark = pytest.mark.anyio


def edge(app: Any, *, guard: Guard | None = None, start: Any = None, stop: Any = None) -> Edge:
    async def nothing(*_: Any) -> None:
        return None

    return Edge(guard or Guard(Services()), app, start=start or nothing, stop=stop or nothing)


def behind(policy: Policy, handler: Any, guard: Guard | None = None) -> Edge:
    """Return an edge whose one handler is entered under `policy`, as an adapter would."""
    guard = guard or Guard(Services())
    compiled = guard.compile(policy, handler, "http")

    async def app(scope: Any, receive: Any, sender: Any) -> None:
        await enter(scope[SCOPE_KEY], compiled, handler, (scope, receive, sender))

    return edge(app, guard=guard)


async def test_a_path_with_a_nul_reaches_nobody() -> None:
    guarded = edge(answers())
    for method, path in (("GET", "/a\0b"), ("DELETE", "/\0")):
        result = await send(guarded, method, path)
        assert (result.status, result.problem) == (400, "malformed-request")


async def test_a_cookie_of_ours_is_in_no_shared_cache() -> None:
    """SES-18: on a public route whose handler wants to be cached, too."""

    async def handler(scope: Any, receive: Any, sender: Any) -> None:
        scope[SCOPE_KEY].add_header(b"set-cookie", b"routeguard=x")
        await answers(200, [(b"cache-control", b"public, max-age=3600")])(scope, receive, sender)

    result = await send(behind(public, handler), "GET", "/")
    assert [value for name, value in result.headers if name == b"cache-control"] == [b"private, no-store"]


async def test_whoever_waits_for_an_answer_to_leave_hears_of_one_that_never_does() -> None:
    heard: list[str] = []

    async def handler(scope: Any, receive: Any, sender: Any) -> None:
        scope[SCOPE_KEY].departed = lambda: heard.append(scope["path"])
        if scope["path"] == "/answers":
            await answers(200)(scope, receive, sender)

    for path in ("/answers", "/gone"):
        await send(behind(public, handler), "GET", path)
    assert heard == ["/answers", "/gone"]


def answers(status: int = 200, headers: Any = (), *bodies: bytes) -> Any:
    async def app(scope: Any, receive: Any, sender: Any) -> None:
        await sender({"type": "http.response.start", "status": status, "headers": list(headers)})
        parts = bodies or (b"secret",)
        for place, body in enumerate(parts):
            await sender({"type": "http.response.body", "body": body, "more_body": place < len(parts) - 1})

    return app


class TestNoDecisionNoResponse:
    @pytest.mark.parametrize("status", [200, 201, 204, 206, 301, 302, 303, 304, 307, 308])
    async def test_success_becomes_500(self, status: int) -> None:
        """AZ-11."""
        result = await send(edge(answers(status, [(b"location", b"/y"), (b"set-cookie", b"a=1")])))
        assert result.problem == "guard-not-applied"
        assert b"secret" not in result.body
        assert result.header("set-cookie") is None

    @pytest.mark.parametrize("status", [400, 404, 405, 500, 503])
    async def test_errors_of_the_framework_go_out(self, status: int) -> None:
        assert (await send(edge(answers(status)))).status == status

    async def test_nothing_but_http_is_touched(self) -> None:
        seen: list[str] = []

        async def app(scope: Any, receive: Any, sender: Any) -> None:
            seen.append(scope["type"])
            assert SCOPE_KEY not in scope

        await edge(app)({"type": "custom"}, lambda: None, lambda _: None)  # type: ignore[arg-type, return-value]
        assert seen == ["custom"]

    async def test_socket_cannot_be_accepted(self) -> None:
        async def app(scope: Any, receive: Any, sender: Any) -> None:
            await sender({"type": "websocket.accept"})
            await sender({"type": "websocket.send", "text": "secret"})

        result = await connect(edge(app), "/")
        assert [m["type"] for m in result.sent] == ["websocket.http.response.start", "websocket.http.response.body"]
        assert result.status == 500
        closed = await connect(edge(app), "/", denial=False)
        assert [m["type"] for m in closed.sent] == ["websocket.close"]

    async def test_a_connection_of_the_client_is_replaced(self) -> None:
        """AZ-07: whatever stands in the scope."""
        guard = Guard(Services())
        forgeries: tuple[Any, ...] = ({"decision": ALLOW}, True, "allow")
        for forged in forgeries:
            result = await send(edge(answers(), guard=guard), "GET", "/", (), b"", **{SCOPE_KEY: forged})
            assert result.status == 500


class TestDeciding:
    async def test_decisions_are_recorded(self) -> None:
        seen: list[Any] = []

        async def handler(scope: Any, receive: Any, sender: Any) -> None:
            seen.append(scope[SCOPE_KEY].decision)
            await answers()(scope, receive, sender)

        assert (await send(behind(key, handler), headers=[KEY])).status == 200
        assert (await send(behind(deferred, handler))).status == 500
        assert seen == [ALLOW, None]

    async def test_refusal_is_the_decision(self) -> None:
        guard = Guard(Services())
        connections: list[Connection] = []

        async def app(scope: Any, receive: Any, sender: Any) -> None:
            connections.append(scope[SCOPE_KEY])
            await enter(scope[SCOPE_KEY], guard.compile(key, app, "http"), answers(), (scope, receive, sender))

        await send(edge(app, guard=guard))
        decision = connections[0].decision
        assert isinstance(decision, Refuse)
        assert decision.problem.status == 401
        assert connections[0].refusal is decision.problem

    async def test_effects_are_on_refusals_too(self) -> None:
        async def run(exchange: Any) -> Any:
            exchange.add_header(b"set-cookie", b"gone=; Max-Age=0")
            return PERMISSION_DENIED()

        result = await send(behind(Policy.of(Does(run)), answers()))
        assert (result.status, result.header("set-cookie")) == (403, "gone=; Max-Age=0")

    async def test_defaults_never_double(self) -> None:
        """HDR-02."""
        guard = Guard(Services(), headers=((b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer")))
        result = await send(behind(public, answers(200, [(b"x-frame-options", b"SAMEORIGIN")]), guard))
        assert (result.header("x-frame-options"), result.header("referrer-policy")) == ("SAMEORIGIN", "no-referrer")
        assert (await send(edge(answers(404), guard=guard))).header("x-frame-options") == "DENY"

    async def test_a_cancelled_policy_stays_cancelled(self) -> None:
        import asyncio

        async def run(exchange: Any) -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await send(behind(Policy.of(Does(run)), answers()))

    @pytest.mark.parametrize(
        ("error", "status"),
        [(PERMISSION_DENIED().error(), 403), (Unavailable("x"), 503), (RuntimeError("secret"), 500)],
    )
    async def test_what_handlers_raise(self, error: Exception, status: int) -> None:
        async def handler(scope: Any, receive: Any, sender: Any) -> None:
            raise error

        for app in (behind(public, handler), edge(handler)):
            result = await send(app)
            assert result.status == status
            assert result.problem
            assert b"secret" not in result.body
            assert isinstance(result.error, RuntimeError) is (status == 500)

    async def test_the_log_says_why_and_the_answer_does_not(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "routeguard.guard"):
            result = await send(behind(key, answers()), "G\x1bT" + "x" * 100, "/a\nb")
        [record] = caplog.records
        told = record.routeguard  # type: ignore[attr-defined]
        assert told["cause"] == "wrong key"
        assert told["request_id"].encode() in result.body
        assert b"wrong key" not in result.body
        assert "\n" not in record.getMessage()
        assert "\x1b" not in record.getMessage()
        # Whoever reads plain lines finds the cause too, and a path writes no words of its own into them.
        start = r"refused: G\u001bT" + "x" * 17 + r' "/a\nb" 401 authentication-required handler='
        assert record.getMessage().startswith(start)
        assert record.getMessage().endswith(f' cause="wrong key" {told["request_id"]}')

    async def test_a_path_cannot_pretend_to_be_other_pairs(self, caplog: pytest.LogCaptureFixture) -> None:
        """JWT-09"""
        with caplog.at_level(logging.INFO, "routeguard.guard"):
            await send(behind(key, answers()), "GET", '/a" 200 ok handler=other cause="' + "x" * 1000)
        [record] = caplog.records
        assert record.getMessage().startswith(r'refused: GET "/a\" 200 ok handler=other cause=\"xxx')
        assert len(record.getMessage()) < 400


class TestBody:
    async def test_read_twice_by_the_policy_and_once_by_the_handler(self) -> None:
        """BODY-21."""
        seen: list[bytes] = []

        async def run(exchange: Any) -> None:
            seen.append(await exchange.read_body())
            seen.append(await exchange.read_body())

        async def handler(scope: Any, receive: Any, sender: Any) -> None:
            body, more = b"", True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            seen.append(body)
            assert (await receive())["type"] == "http.disconnect"
            await answers()(scope, receive, sender)

        whole = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}]
        result = await send(behind(public & Policy.of(Does(run)), handler), body=[*whole, {"type": "http.disconnect"}])
        assert result.status == 200
        assert seen == [b"ab", b"ab", b"ab"]

    async def test_over_the_limit_while_the_policy_reads(self) -> None:
        async def run(exchange: Any) -> None:
            await exchange.read_body()

        app = behind(public & Policy.of(Does(run), Limit(3)), answers())
        assert (await send(app, "POST", body=[b"12", b"34"])).problem == "content-too-large"
        assert (await send(app, "POST", body=[b"12", b"3"])).status == 200

    async def test_limit_before_any_decision(self) -> None:
        """What reads outside of any handler is bounded too."""

        async def app(scope: Any, receive: Any, sender: Any) -> None:
            while (await receive())["type"] == "http.request":
                pass
            await answers(404)(scope, receive, sender)

        guard = Guard(Services(), body_limit=3)
        assert (await send(edge(app, guard=guard), "POST", body=[b"1234"])).status == 413

    async def test_nothing_is_read_after_the_refusal(self) -> None:
        """BODY-01: not even for a handler that asks again, for the body may have no end."""

        async def app(scope: Any, receive: Any, sender: Any) -> None:
            for _ in range(5):
                with contextlib.suppress(Exception):
                    while True:
                        await receive()
            await answers(200)(scope, receive, sender)

        guard = Guard(Services(), body_limit=3)
        result = await send(edge(app, guard=guard), "POST", body=[b"12", b"34", b"56", b"78", b"90"])
        assert (result.status, result.received) == (413, 2)

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ([(b"content-length", b"5")], 0),
            ([(b"content-length", b"6")], 413),
            ([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], 400),
            ([(b"transfer-encoding", b"chunked")], 0),
            ([(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"accept", b"1"), (b"accept", b"2")], 0),
            ([(b"content-length", b"")], 400),
        ],
    )
    def test_transport(self, headers: Any, status: int) -> None:
        view = RequestView.from_scope({"type": "http", "method": "POST", "path": "/", "headers": headers})
        problem = transport(view, 5)
        assert (problem.status if problem else 0) == status


class TestObserver:
    """Captured responses, for idempotency."""

    @staticmethod
    def observed(seen: list[Any], policy: Any = None) -> Policy:
        async def run(exchange: Any) -> None:
            async def observer(captured: Captured | None) -> None:
                seen.append(captured)

            exchange.observer = observer

        return Policy.of(Does(run))

    async def test_whole_answers_as_the_handler_gave_them(self) -> None:
        seen: list[Any] = []
        result = await send(behind(self.observed(seen), answers(201, [(b"x-a", b"1")], b"one", b"two")))
        assert result.status == 201
        assert seen == [Captured(201, ((b"x-a", b"1"),), b"onetwo")]

    async def test_long_answers_are_not_kept(self) -> None:
        seen: list[Any] = []
        result = await send(behind(self.observed(seen), answers(200, (), b"a" * 700_000, b"b" * 700_000, b"c")))
        assert (len(result.body), seen) == (1_400_001, [None])

    async def test_a_handlers_own_refusal_is_its_answer(self) -> None:
        async def handler(scope: Any, receive: Any, sender: Any) -> None:
            raise NOT_FOUND().error()

        seen: list[Any] = []
        result = await send(behind(self.observed(seen), handler))
        assert [captured.status for captured in seen] == [404]
        assert seen[0].body == result.body

    async def test_a_handler_that_breaks_frees_its_followers_once(self) -> None:
        async def breaks(scope: Any, receive: Any, sender: Any) -> None:
            await sender({"type": "http.response.start", "status": 200, "headers": []})
            raise RuntimeError

        seen: list[Any] = []
        await send(behind(self.observed(seen), breaks))
        assert seen == [None]

    async def test_what_a_later_check_says_is_no_answer_of_the_handler(self) -> None:
        async def replays(exchange: Any) -> Reply:
            return Reply(200, (), b"again")

        async def refuses(exchange: Any) -> Any:
            return PERMISSION_DENIED()

        for check in (replays, refuses):
            seen: list[Any] = []
            await send(behind(self.observed(seen) & Policy.of(Does(check)), answers()))
            assert seen == [None]


class TestSockets:
    async def test_effects_ride_on_the_accept(self) -> None:
        guard = Guard(Services())

        async def run(exchange: Any) -> None:
            exchange.add_header(b"set-cookie", b"a=1")

        async def handler(scope: Any, receive: Any, sender: Any) -> None:
            await sender({"type": "websocket.accept", "headers": [(b"x-own", b"1")]})
            await sender({"type": "websocket.close", "code": 1000})
            raise PERMISSION_DENIED().error()

        compiled = guard.compile(Policy.of(Does(run)), handler, "websocket")

        async def app(scope: Any, receive: Any, sender: Any) -> None:
            await enter(scope[SCOPE_KEY], compiled, handler, (scope, receive, sender))

        result = await connect(edge(app, guard=guard), "/")
        assert result.sent[0]["headers"] == [(b"x-own", b"1"), (b"set-cookie", b"a=1")]
        # Closed once: a refusal after the handler's own close says nothing more.
        assert [m["type"] for m in result.sent] == ["websocket.accept", "websocket.close"]


class TestFramework:
    """Answers nobody decided about that may still leave."""

    @staticmethod
    def view(path: str = "/x", method: str = "GET", headers: Any = (), scheme: str = "http") -> RequestView:
        return RequestView.from_scope(
            {
                "type": "http",
                "method": method,
                "path": path,
                "scheme": scheme,
                "headers": [(b"host", b"a.example"), *headers],
            }
        )

    @pytest.mark.parametrize(
        ("path", "location", "due"),
        [
            ("/x", b"http://a.example/x/", b"/x/"),
            ("/x/", b"http://evil.example/x", b"/x"),
            ("/x", b"http://evil.example/x/?a=1", b"/x/?a=1"),
            ("/a b", b"http://a.example/a%20b/", b"/a%20b/"),
            ("/x", b"https://a.example/x", b"https://a.example/x"),
            ("/x", b"https://a.example:443/x", b"https://a.example:443/x"),
            ("/x", b"https://evil.example/x", None),
            ("/x", b"http://a.example/y", None),
            ("//evil.example", b"http://a.example//evil.example/", None),  # RED-01
            ("/x", b"//evil.example/x/", b"/x/"),
            ("/x", b"javascript:alert(1)", None),
            ("/x", b"", None),
            ("/\\evil", b"http://a.example/\\evil/", None),
        ],
    )
    def test_slash_redirects(self, path: str, location: bytes, due: bytes | None) -> None:
        headers = [(b"Location", location)]
        assert answered_by_framework(self.view(path), 307, headers) is (due is not None)
        if due is not None:
            assert headers == [(b"Location", due)]

    def test_only_one_location_and_only_307(self) -> None:
        twice = [(b"location", b"/x/"), (b"location", b"//evil.example")]
        assert not answered_by_framework(self.view(), 307, twice)
        assert not answered_by_framework(self.view(), 307, [])
        assert not answered_by_framework(self.view(), 302, [(b"location", b"/x/")])

    def test_no_downgrade(self) -> None:
        """A page on https is not sent to itself over and over, nor to http."""
        assert not answered_by_framework(self.view(scheme="https"), 307, [(b"location", b"https://a.example/x")])

    def test_preflights(self) -> None:
        asked = [(b"access-control-request-method", b"PUT")]
        assert answered_by_framework(self.view(method="OPTIONS", headers=asked), 200, [])
        assert answered_by_framework(self.view(method="OPTIONS", headers=asked), 204, [])
        assert not answered_by_framework(self.view(method="OPTIONS", headers=asked), 201, [])
        assert not answered_by_framework(self.view(method="OPTIONS"), 200, [])
        assert not answered_by_framework(self.view(method="GET", headers=asked), 200, [])


class TestLife:
    @staticmethod
    async def lives(scope: Any, receive: Any, sender: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        await sender({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await sender({"type": "lifespan.shutdown.complete"})

    async def test_starts_before_the_application_and_stops_after(self) -> None:
        order: list[Any] = []

        async def start(lifespan: bool) -> None:
            order.append(lifespan)

        async def stop() -> None:
            order.append("stop")

        async def app(scope: Any, receive: Any, sender: Any) -> None:
            async def told() -> Any:
                message = await receive()
                order.append(message["type"])
                return message

            async def says(message: Any) -> None:
                await sender(message)
                order.append(message["type"])

            await self.lives(scope, told, says)

        await life(edge(app, start=start, stop=stop))
        # Everything is closed before the server hears of it: then it ends the process (attack OPS-14).
        assert order == [
            True,
            "lifespan.startup",
            "lifespan.startup.complete",
            "lifespan.shutdown",
            "stop",
            "lifespan.shutdown.complete",
        ]

    async def test_an_application_that_dies_is_closed_too(self) -> None:
        stopped: list[bool] = []

        async def stop() -> None:
            stopped.append(True)

        async def app(scope: Any, receive: Any, sender: Any) -> None:
            raise OSError

        await life(edge(app, stop=stop))
        assert stopped == [True]

    @pytest.mark.parametrize(
        ("error", "message"),
        [(ConfigError(["one", "two"]), "one\ntwo"), (OSError("password=hunter2"), "OSError")],
        ids=["config", "other"],
    )
    async def test_a_failed_start_is_said_in_the_protocol(self, error: Exception, message: str) -> None:
        stopped: list[bool] = []

        async def start(lifespan: bool) -> None:
            raise error

        async def stop() -> None:
            stopped.append(True)

        sent = await life(edge(self.lives, start=start, stop=stop))
        assert sent[0] == {"type": "lifespan.startup.failed", "message": message}
        assert stopped == [True]

    async def test_a_lazy_start_that_fails_is_500_or_503_and_tried_again(self) -> None:
        outcomes: list[Any] = [Unavailable("database"), ConfigError("wrong"), None]

        async def start(lifespan: bool) -> None:
            outcome = outcomes.pop(0)
            if outcome is not None:
                raise outcome

        app = edge(answers(404), start=start)
        assert [(await send(app)).status for _ in range(4)] == [503, 500, 404, 404]


async def test_too_large_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, sender: Any) -> None:
        try:
            await receive()
        except Exception:
            await answers(500)(scope, receive, sender)
            raise

    with caplog.at_level(logging.INFO, "routeguard.guard"):
        result = await send(edge(app, guard=Guard(Services(), body_limit=1)), body=b"12")
    assert result.status == CONTENT_TOO_LARGE().status
    assert len(caplog.records) == 1
