"""The session's own endpoints, under /auth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from routeguard.core.caller import principal_as
from routeguard.core.credentials import credential_of
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.problem import NOT_FOUND, authentication_required
from routeguard.foundation.web.body import JSON_TYPE, media_type_of, read
from routeguard.foundation.web.reply import no_content, reply
from routeguard.foundation.web.routes import delete, get, post
from routeguard.identity.sessions import checks
from routeguard.identity.sessions.models import UserSession
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.users.models import public_user
from routeguard.protection.traffic.operations import once, operation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from routeguard.core.exchange import Exchange
    from routeguard.core.policy import Policy
    from routeguard.core.services import Services


def routes(services: Services) -> list[Route]:
    """Return the endpoints over the registered `Sessions`."""
    endpoints = _Endpoints(services.get(Sessions))
    signed_in = checks.session()

    def limited(name: str) -> Policy:
        return signed_in & operation(services, name, show_remaining=True, on_outage="local")

    # A caller without a session is signed out: 204 as well. An outage is still 503.
    sign_out = checks.optional_session() & once(services, "sign-out", show_remaining=True, on_outage="local")
    everywhere = signed_in & once(services, "sign-out-everywhere", show_remaining=True, on_outage="local")
    return [
        get("/auth/session", endpoints.show, limited("session")),
        post("/auth/sign-out", endpoints.sign_out, sign_out, redirect_to="/"),
        post("/auth/sign-out-everywhere", endpoints.sign_out_everywhere, everywhere, redirect_to="/"),
        get("/auth/sessions", endpoints.list, limited("sessions")),
        delete("/auth/sessions/{id:str}", endpoints.revoke, limited("session-revoke")),
    ]


def session_body(session: UserSession[Any]) -> dict[str, Any]:
    """Return a session as `GET /auth/session` and sign-in answer it."""
    return {
        "user": public_user(session.user),
        "organization": session.organization,
        "role": session.role,
        "expires_at": session.expires_at,
    }


@dataclass(frozen=True, slots=True)
class _SignOut:
    refresh_token: str | None = field(default=None, repr=False)


class _Endpoints:
    def __init__(self, sessions: Sessions[Any]) -> None:
        self._sessions = sessions

    async def show(self, request: Request) -> Response:
        return reply(session_body(session_of(request)))

    async def sign_out(self, request: Request) -> Response:
        exchange = exchange_of(request)
        token = await _token_in(request)
        # A caller that put a credential into a header field wants that one ended; "done" would be untrue of an invalid
        # one, and its refresh token would live on.
        sent = credential_of(exchange.request)
        if token is None and exchange.principal is None and sent is not None and sent.kind == "token":
            raise authentication_required("the credential to sign out is invalid").error()
        await self._sessions.sign_out(exchange, token=token)
        return _signed_out(exchange)

    async def sign_out_everywhere(self, request: Request) -> Response:
        exchange = exchange_of(request)
        await self._sessions.sign_out_everywhere(exchange, session_of(request).principal_id)
        return _signed_out(exchange)

    async def list(self, request: Request) -> Response:
        current = session_of(request)
        found = await self._sessions.list(current.principal_id)
        return reply(
            {
                "sessions": [
                    {
                        "id": one.id,
                        "created_at": one.created_at,
                        "last_seen_at": one.last_seen_at,
                        "expires_at": one.expires_at,
                        "user_agent": one.user_agent,
                        "address": one.address,
                        "current": one.id == current.id,
                    }
                    for one in found
                ]
            }
        )

    async def revoke(self, request: Request) -> Response:
        # Only among the caller's own: another user's session is as unknown as one that never was (attack SES-24).
        if not await self._sessions.revoke_own(exchange_of(request), session_of(request), request.path_params["id"]):
            raise NOT_FOUND().error()
        return no_content()


async def _token_in(request: Request) -> str | None:
    """Return the refresh token in a JSON body. Other bodies are ignored: signing out must not fail."""
    sent = [value for name, value in request.scope["headers"] if name == b"content-type"]
    return (await read(request, _SignOut)).refresh_token if media_type_of(sent) == JSON_TYPE else None


def _signed_out(exchange: Exchange) -> Response:
    # ASVS v5.0.0-14.3.1: what the browser kept of this origin goes too (attack SES-17).
    exchange.add_header(b"clear-site-data", b'"cookies", "storage"')
    return no_content()


def exchange_of(request: Request) -> Exchange:
    """Return the exchange of a guarded request."""
    exchange: Exchange = request.scope[SCOPE_KEY]
    return exchange


def session_of(request: Request) -> UserSession[Any]:
    """Return the session of a route whose policy asks for one. Raises ProblemError 401 where it did not."""
    return principal_as(exchange_of(request), UserSession)
