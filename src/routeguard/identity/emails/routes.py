"""Addresses over HTTP, under /auth: for scripts in JSON and for the pages as forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from routeguard.core.policy import public
from routeguard.foundation.web.body import read
from routeguard.foundation.web.onward import NextCookie, Then
from routeguard.foundation.web.reply import no_content, reply
from routeguard.foundation.web.routes import post
from routeguard.identity.emails.service import Emails
from routeguard.identity.sessions import checks
from routeguard.identity.sessions.routes import exchange_of, session_of
from routeguard.protection.traffic.csrf import csrf
from routeguard.protection.traffic.operations import once, operation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from routeguard.core.services import Services


def routes(services: Services) -> list[Route]:
    """Return the endpoints over the registered `Emails`.

    Opening a mailed link is a GET of a page with a button, which uses nothing up (attack ML-03).
    """
    endpoints = _Endpoints(services.get(Emails))
    anyone, signed_in = public & csrf(), checks.session()
    verify, resend = anyone & operation(services, "email-verify"), anyone & once(services, "email-resend")
    change = signed_in & operation(services, "email-change")
    carried = partial(Then, carry=True, cookie=NextCookie.of(services))
    return [
        post(
            "/auth/email/verify", endpoints.verify, verify, redirect_to=carried("/auth/sign-in?notice=email-verified")
        ),
        post("/auth/email/resend", endpoints.resend, resend, redirect_to=carried("/auth/sign-in?notice=sent")),
        post("/auth/email/change", endpoints.change, change, redirect_to="/account?notice=email-change-sent"),
    ]


@dataclass(frozen=True, slots=True)
class _Verify:
    token: str


@dataclass(frozen=True, slots=True)
class _Resend:
    email: str


@dataclass(frozen=True, slots=True)
class _Change:
    email: str
    password: str


class _Endpoints:
    def __init__(self, emails: Emails) -> None:
        self._emails = emails

    async def verify(self, request: Request) -> Response:
        body = await read(request, _Verify)
        await self._emails.verify(body.token)
        return no_content()

    async def resend(self, request: Request) -> Response:
        body = await read(request, _Resend)
        await self._emails.resend(email=body.email)
        return reply({"accepted": True}, 202)

    async def change(self, request: Request) -> Response:
        body = await read(request, _Change)
        exchange, session = exchange_of(request), session_of(request)
        await self._emails.change(exchange, session, email=body.email, password=body.password)
        return reply({"accepted": True}, 202)
