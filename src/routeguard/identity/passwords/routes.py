"""Passwords over HTTP, under /auth: for scripts in JSON and for the pages as forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from routeguard.core.policy import public
from routeguard.foundation.web.body import read
from routeguard.foundation.web.onward import NextCookie, Then
from routeguard.foundation.web.reply import no_content, reply
from routeguard.foundation.web.routes import post
from routeguard.identity.passwords.service import Passwords
from routeguard.identity.sessions import checks
from routeguard.identity.sessions.routes import exchange_of, session_body, session_of
from routeguard.protection.traffic.csrf import csrf
from routeguard.protection.traffic.operations import SIGN_IN, SIGN_UP, once, operation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from routeguard.core.services import Services


def routes(services: Services) -> list[Route]:
    """Return the endpoints over the registered `Passwords`."""
    endpoints = _Endpoints(services.get(Passwords))
    # Open to every caller, but not to foreign pages: those could sign a user in as another (login CSRF).
    anyone, signed_in = public & csrf(), checks.session()
    sign_up, sign_in = anyone & once(services, SIGN_UP), anyone & once(services, SIGN_IN)
    forgot, reset = anyone & once(services, "password-forgot"), anyone & once(services, "password-reset")
    change = signed_in & operation(services, "password-change")
    cookie = NextCookie.of(services)
    carried = partial(Then, carry=True, cookie=cookie)
    return [
        post("/auth/sign-up", endpoints.sign_up, sign_up, redirect_to=carried("/auth/sign-in?notice=signed-up")),
        post("/auth/sign-in", endpoints.sign_in, sign_in, redirect_to=Then("/account", cookie=cookie)),
        post(
            "/auth/password/forgot", endpoints.forgot, forgot, redirect_to=carried("/auth/password/forgot?notice=sent")
        ),
        post(
            "/auth/password/reset", endpoints.reset, reset, redirect_to=carried("/auth/sign-in?notice=password-reset")
        ),
        post("/auth/password/change", endpoints.change, change, redirect_to="/account?notice=password-changed"),
    ]


# Each names all it takes: role, id or email_verified in a body are refused as unknown members.


@dataclass(frozen=True, slots=True)
class _SignUp:
    email: str
    password: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class _SignIn:
    email: str
    password: str
    remember: bool = True


@dataclass(frozen=True, slots=True)
class _Forgot:
    email: str


@dataclass(frozen=True, slots=True)
class _Reset:
    token: str
    password: str


@dataclass(frozen=True, slots=True)
class _Change:
    current_password: str
    new_password: str


class _Endpoints:
    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    async def sign_up(self, request: Request) -> Response:
        body = await read(request, _SignUp)
        await self._passwords.sign_up(
            email=body.email, password=body.password, name=body.name, exchange=exchange_of(request)
        )
        # The same for a taken address, so nothing in it comes from the account (attack ENUM-03).
        return reply({"email": body.email, "next": exchange_of(request).root + "/auth/sign-in"}, 201)

    async def sign_in(self, request: Request) -> Response:
        body = await read(request, _SignIn)
        session = await self._passwords.sign_in(
            exchange_of(request), email=body.email, password=body.password, lasting=body.remember
        )
        return reply(session_body(session))

    async def forgot(self, request: Request) -> Response:
        body = await read(request, _Forgot)
        await self._passwords.forgot(email=body.email)
        return reply({"accepted": True}, 202)

    async def reset(self, request: Request) -> Response:
        body = await read(request, _Reset)
        await self._passwords.reset(token=body.token, password=body.password)
        return no_content()

    async def change(self, request: Request) -> Response:
        body = await read(request, _Change)
        await self._passwords.change(
            exchange_of(request),
            session_of(request),
            current_password=body.current_password,
            new_password=body.new_password,
        )
        return no_content()
