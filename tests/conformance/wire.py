"""The words of the adapter suite: policies that are a header key, neutral handlers and raw ASGI requests."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from routeguard.core.errors import ConfigError
from routeguard.core.policy import Check, Policy, Stage
from routeguard.core.problem import PERMISSION_DENIED, authentication_required
from routeguard.core.services import Services
from routeguard.protection.guard.guard import Guard
from routeguard.protection.guard.transport import BodyLimited

KEY = (b"x-key", b"ok")
ADMIN = (b"x-admin", b"ok")


# -- policies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key(Check):
    """Asks for a header: 401 without it, 403 when `status` says so."""

    name: bytes = b"x-key"
    status: int = 401

    stage = Stage.IDENTITY

    def bind(self, services: Services) -> Any:
        async def run(exchange: Any) -> Any:
            if exchange.request.headers.get(self.name) == b"ok":
                return None
            return authentication_required("wrong key") if self.status == 401 else PERMISSION_DENIED()

        return run

    def describe(self) -> str:
        return f"key {self.name.decode()}"


@dataclass(frozen=True, slots=True)
class Does(Check):
    """Runs any function as a check: for broken policies."""

    function: Callable[[Any], Any]

    stage = Stage.ACCESS

    def bind(self, services: Services) -> Any:
        return self.function


@dataclass(frozen=True, slots=True)
class Limit(BodyLimited):
    """States a body limit."""

    body_limit: int


@dataclass(frozen=True, slots=True)
class ReadsBody(Check):
    """Reads the whole body before the handler does, and remembers it."""

    stage = Stage.EXECUTION

    def bind(self, services: Services) -> Any:
        async def run(exchange: Any) -> None:
            exchange.facts[ReadsBody] = await exchange.read_body()

        return run


@dataclass(frozen=True, slots=True)
class Unbindable(Check):
    """Fails to bind, as a policy with a wrong name in it does."""

    stage = Stage.ACCESS

    def bind(self, services: Services) -> Any:
        raise ConfigError(["first finding", "second finding"])


key = Policy.of(Key())
admin = Policy.of(Key(b"x-admin", 403))


# -- neutral handlers -----------------------------------------------------------------------------------------------


@dataclass
class Call:
    """What a neutral handler sees."""

    scope: Any
    body: Callable[[], Awaitable[bytes]]


@dataclass
class Answer:
    """What a neutral handler returns."""

    body: bytes = b"secret"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncIterator[bytes] | None = None
    background: Callable[[], Awaitable[None]] | None = None


Handler = Callable[[Call], Awaitable[Answer]]


class Spy:
    """A handler that tells whether it ran, by its list and by a header nobody else sets."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.ran: list[Any] = []
        self.answer = answer or Answer()

    async def __call__(self, call: Call) -> Answer:
        self.ran.append(call.scope.get("path"))
        answer = self.answer
        return Answer(
            answer.body, answer.status, (*answer.headers, ("x-canary", "1")), answer.stream, answer.background
        )


class AppUnderTest(Protocol):
    """One framework's words. Made empty; `finish(guarded)` returns the ASGI application."""

    name: str
    guard: Guard
    marks: bool
    """Whether handlers get the policies they are given. Without a guard, marked ones do not answer."""

    def route(
        self,
        path: str,
        handler: Handler,
        policy: Policy | None = None,
        *,
        methods: Sequence[str] = ("GET",),
        at: Any = None,
        sync: bool = False,
    ) -> None: ...
    def websocket(self, path: str, policy: Policy | None = None, *, at: Any = None) -> list[str]:
        """An echoing socket; the list tells whether it ran."""
        ...

    def classed(
        self, path: str, methods: dict[str, tuple[Handler, Policy | None]], policy: Policy | None = None
    ) -> None: ...
    def router(self, prefix: str = "") -> Any:
        """A group of routes that is not part of the application yet."""
        ...

    def include(self, router: Any, *, prefix: str = "", at: Any = None) -> None: ...
    def mount(self, path: str, app: Any, policy: Policy | None = None, *, at: Any = None) -> None:
        """Mounts a router or a bare ASGI application."""
        ...

    def raises_http(self, status: int, headers: dict[str, str] | None = None) -> Exception: ...
    def cors(self, origin: str) -> None: ...
    def install(self, *, mode: str = "enforce") -> None: ...
    def asgi(self) -> Any: ...


# -- raw requests -------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What came over the wire."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    received: int = 0
    error: BaseException | None = None

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"]) if self.sent and "status" in self.sent[0] else 0

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(name.lower(), value) for name, value in self.sent[0].get("headers", ())]

    def header(self, name: str) -> str | None:
        values = [value.decode("latin-1") for found, value in self.headers if found == name.encode()]
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"].endswith("response.body"))

    @property
    def problem(self) -> str:
        assert self.header("content-type") == "application/problem+json", (self.status, self.headers, self.body)
        assert self.header("x-content-type-options") == "nosniff"
        data = json.loads(self.body)
        assert data["status"] == self.status
        assert re.fullmatch(r"req_[\w-]{12}", data["instance"])
        return str(data["type"]).rsplit("/", 1)[-1]

    @property
    def canary(self) -> bool:
        return self.header("x-canary") is not None

    @property
    def complete(self) -> bool:
        last = self.sent[-1]
        return bool(last["type"].endswith("response.body") and not last.get("more_body", False))


async def send(
    app: Any,
    method: str = "GET",
    path: str = "/",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes | Sequence[Any] = b"",
    **scope: Any,
) -> Result:
    """Send one HTTP request. `body` may be a list of chunks, or of whole ASGI messages."""
    chunks = [body] if isinstance(body, bytes) else list(body)
    messages = [
        chunk
        if isinstance(chunk, dict)
        else {"type": "http.request", "body": chunk, "more_body": place < len(chunks) - 1}
        for place, chunk in enumerate(chunks)
    ]
    whole = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": list(headers),
        "client": ("203.0.113.9", 40000),
        "server": ("testserver", 80),
        "extensions": {},
    } | scope
    return await _run(app, whole, messages, {"type": "http.disconnect"})


async def connect(
    app: Any,
    path: str,
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    denial: bool = True,
    texts: Sequence[str] = ("hello",),
    **scope: Any,
) -> Result:
    """Open a WebSocket, send `texts` and leave."""
    whole = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "ws",
        "headers": list(headers),
        "client": ("203.0.113.9", 40000),
        "server": ("testserver", 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}} if denial else {},
    } | scope
    messages = [{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": text} for text in texts)]
    return await _run(app, whole, messages, {"type": "websocket.disconnect", "code": 1000})


async def _run(app: Any, scope: dict[str, Any], messages: list[Any], last: dict[str, Any]) -> Result:
    result = Result()
    waiting = messages.copy()
    complete = messages[-1]["type"] == "http.request" and not messages[-1].get("more_body", False)
    answered = asyncio.Event()

    async def receive() -> Any:
        result.received += 1
        if not waiting and complete:
            await answered.wait()  # A client who has sent everything waits for its answer.
        return waiting.pop(0) if waiting else last

    async def sender(message: Any) -> None:
        result.sent.append(dict(message))
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            answered.set()

    try:
        await app(scope, receive, sender)
    except Exception as error:  # the server logs it; tests look at it
        result.error = error
    return result


async def life(app: Any) -> list[dict[str, Any]]:
    """Run a lifespan from start to stop, as a server does."""
    sent: list[dict[str, Any]] = []
    queue: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    answered = asyncio.Event()

    async def sender(message: Any) -> None:
        sent.append(dict(message))
        answered.set()

    await queue.put({"type": "lifespan.startup"})

    async def serve() -> None:
        try:
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, queue.get, sender)
        except Exception as error:
            sent.append({"type": "raised", "error": error})
            answered.set()

    task = asyncio.create_task(serve())
    await answered.wait()
    await queue.put({"type": "lifespan.shutdown"})
    await task
    return sent


SPELLINGS = (
    "//admin",
    "///admin",
    "/./admin",
    "/%61dmin",
    "/%2561dmin",
    "/admin/",
    "/admin//",
    "/admin;x",
    "/admin;x=1",
    "/Admin",
    "/ADMIN",
    "/aDMIN",
    "/x/../admin",
    "/x/%2e%2e/admin",
    "/x/..%2fadmin",
    "/admin%2f",
    "/admin%2F",
    "/admin/..;/x",
    "/admin/.",
    "/admin/./",
    "/admin/..",
    "/admin/../admin",
    "/admin%00",
    "/admin%00.json",
    "/admin%20",
    "/admin%09",
    "/admin ",
    " /admin",
    "/admin\t",
    "/admin\n",
    "/admin%0a",
    "/admin%0d%0a",
    "\\admin",
    "/\\admin",
    "/admin\\",
    "/admin%5c",
    "/%5cadmin",
    "/admin.json",
    "/admin.",
    "/admin~",
    "/admin?",
    "/admin%3f",
    "/admin#",
    "/admin%23",
    "/admin/%2e",
    "/admin/%2e%2e/admin",
    "/%2fadmin",
    "/%2Fadmin",
    "/admin%ef%bc%8f",
    "/\uff0fadmin",
    "/\u0430dmin",
    "/adm\u0131n",
    "/admin\u200b",
    "/adm%C4%B1n",
    "/admin%e2%80%8b",
    "/admi%6e",
    "/admin/index.html",
    "/admin/x/..",
    "/.//admin",
    "/admin*",
    "/*",
    "*",
    "",
    "/",
    "admin",
    "http://a/admin",
    "//testserver/admin",
    "/admin&x",
    "/admin%26",
    "/admin,",
    "/admin|",
    "/admin%252f",
    "/..%2fadmin",
    "/%2e/admin",
)
