"""A guarded Starlette application over users that it already has: no table of Routeguard is used.

uv run uvicorn examples.starlette:app
curl -H "Authorization: Bearer key-of-bob" http://127.0.0.1:8000/me
"""

from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from routeguard import RequestView, Routeguard, Settings, body_limit, deferred, public


@dataclass(frozen=True)
class Employee:
    """Whatever you have. Its `id` says who it is."""

    id: int
    name: str
    role: str


KEYS = {"Bearer key-of-ada": Employee(1, "Ada", "admin"), "Bearer key-of-bob": Employee(2, "Bob", "clerk")}


async def identify(request: RequestView) -> Employee | None:
    """Say who sends a request. None is nobody; raise `Unavailable` when you cannot tell."""
    return KEYS.get(request.headers.get(b"authorization", b"").decode("latin-1"))


guard = Routeguard(Settings(), user=Employee, identify=identify)
signed_in = guard.session()
admin = guard.session(user={"role": "admin"})


@guard(public)
async def home(request: Request) -> JSONResponse:
    return JSONResponse({"hello": "everybody"})


@guard(signed_in)
async def me(request: Request) -> JSONResponse:
    session = await guard.current_session(request)
    return JSONResponse({"name": session.user.name})


@guard(guard.optional_session())
async def menu(request: Request) -> JSONResponse:
    session = await guard.find_session(request)
    return JSONResponse({"for": session.user.name if session else "guests"})


@guard(deferred, body_limit("1 KB"))  # Only the body can tell: decided inside, and unanswered if forgotten.
async def transfer(request: Request) -> JSONResponse:
    try:
        amount = int((await request.json())["amount"])
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"amount": "must be a number"}, 422)
    session = await guard.require(request, admin if amount > 1000 else signed_in)
    return JSONResponse({"by": session.user.name, "amount": amount}, 201)


@guard(admin)
async def report(request: Request) -> JSONResponse:
    return JSONResponse({"employees": len(KEYS)})


app = Starlette(
    routes=[
        Route("/", home),
        Route("/me", me),
        Route("/menu", menu),
        Route("/transfers", transfer, methods=["POST"]),
        Mount("/admin", routes=[Route("/report", report)]),
    ]
)
guard.install(app)
