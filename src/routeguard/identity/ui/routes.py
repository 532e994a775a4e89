"""The pages' routes. Reading a page changes nothing; every change is a post to an endpoint with its own policy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from routeguard.core.clock import Clock
from routeguard.core.policy import public
from routeguard.core.problem import NOT_FOUND
from routeguard.core.redirect import safe_redirect
from routeguard.foundation.db.database import Database
from routeguard.foundation.web.body import read
from routeguard.foundation.web.onward import NextCookie
from routeguard.foundation.web.reply import no_content, see_other
from routeguard.foundation.web.routes import get, post
from routeguard.identity.sessions import checks
from routeguard.identity.sessions.routes import exchange_of, session_of
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.ui.script import script_routes
from routeguard.identity.ui.templates import FORMS, PAGES, FormPage, FormTexts, show_form
from routeguard.identity.ui.words import ago, device, notice
from routeguard.identity.users.service import Users
from routeguard.protection.traffic.operations import operation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from routeguard.core.services import Services


def routes(services: Services) -> list[Route]:
    """Return all pages over the registered services."""
    texts = services.get(FormTexts)
    account, open_ = _Account(services, texts), _Open(texts, NextCookie.of(services))
    anyone, signed_in = checks.optional_session(), checks.session()
    # One budget with `DELETE /auth/sessions/{id}`: the same thing done by a form (attack RL-19).
    revoke = signed_in & operation(services, "session-revoke", show_remaining=True, on_outage="local")
    rename = signed_in & operation(services, "name-change", show_remaining=True, on_outage="local")
    return [
        *script_routes(),
        get("/auth/sign-in", partial(open_.entrance, FORMS["/auth/sign-in"]), anyone),
        get("/auth/sign-up", partial(open_.entrance, FORMS["/auth/sign-up"]), anyone),
        get("/auth/password/forgot", partial(open_.form, FORMS["/auth/password/forgot"]), public),
        get("/auth/password/reset", partial(open_.by_link, FORMS["/auth/password/reset"]), public),
        get("/auth/email/verify", partial(open_.by_link, FORMS["/auth/email/verify"]), public),
        get("/auth/email/resend", partial(open_.form, FORMS["/auth/email/resend"]), public),
        get("/account", account.show, signed_in),
        get("/account/name", account.name_form, signed_in),
        post("/account/name", account.rename, rename, redirect_to="/account?notice=name-changed"),
        get("/account/password", partial(account.form, FORMS["/auth/password/change"]), signed_in),
        get("/account/email", partial(account.form, FORMS["/auth/email/change"]), signed_in),
        post("/account/sessions/{id:str}/revoke", account.revoke, revoke, redirect_to="/account?notice=session-ended"),
    ]


class _Open:
    """Pages for everybody."""

    def __init__(self, texts: FormTexts, cookie: NextCookie) -> None:
        self._texts = texts
        self._cookie = cookie

    async def entrance(self, page: FormPage, request: Request) -> Response:
        """Show sign-in or sign-up; a signed-in user goes on."""
        exchange = exchange_of(request)
        if exchange.principal is None:
            return await self.form(page, request)
        code = request.query_params.get("notice", "")
        onward = safe_redirect(request.query_params.get("next"), "", root=exchange.root)
        return see_other(onward or exchange.root + "/account" + (f"?notice={code}" if notice(code) else ""))

    async def form(self, page: FormPage, request: Request) -> Response:
        """Show a form, which carries on the place that a sign-in was asked for."""
        exchange = exchange_of(request)
        onward = safe_redirect(request.query_params.get("next"), "", root=exchange.root) or self._cookie.find(exchange)
        said = notice(request.query_params.get("notice"))
        return show_form(page, self._texts, notice=said, next_path=onward, root=exchange.root)

    async def by_link(self, page: FormPage, request: Request) -> Response:
        """Show a page opened from a mail. The link is not used up: mail scanners open links too (attack ML-03).

        The token is in the fragment, which only the page's script sees. Links mailed by earlier versions hold it in
        the query, which the script reads too; servers write their access log from the scope, after the answer, so it
        is taken out there.
        """
        request.scope["query_string"] = b""
        return await self.form(page, request)


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


class _Account:
    def __init__(self, services: Services, texts: FormTexts) -> None:
        self._sessions = services.get(Sessions)
        self._users = services.get(Users)
        self._database = services.get(Database)
        self._clock = services.get(Clock)
        self._texts = texts

    async def show(self, request: Request) -> Response:
        current = session_of(request)
        now = self._clock.now()
        listed = [
            {
                "id": one.id,
                "device": device(one.user_agent),
                "address": one.address,
                "created_at": one.created_at,
                "last_seen_at": one.last_seen_at,
                "last_seen": ago(one.last_seen_at, now),
                "current": one.id == current.id,
            }
            for one in await self._sessions.list(current.principal_id)
        ]
        listed.sort(key=lambda one: not one["current"])
        said = notice(request.query_params.get("notice"))
        return PAGES.render(
            "account.html",
            errors=(),
            user=current.user,
            sessions=listed,
            notice_text=said,
            root=exchange_of(request).root,
        )

    async def form(self, page: FormPage, request: Request) -> Response:
        user: Any = session_of(request).user
        return show_form(page, self._texts, email=user.email, root=exchange_of(request).root)

    async def name_form(self, request: Request) -> Response:
        user: Any = session_of(request).user
        form = {"name": user.name}
        return show_form(FORMS["/account/name"], self._texts, form=form, root=exchange_of(request).root)

    async def rename(self, request: Request) -> Response:
        body = await read(request, _Name)
        async with self._database.transaction() as tx:
            await self._users.update(tx, session_of(request).principal_id, name=body.name)
        return no_content()

    async def revoke(self, request: Request) -> Response:
        # Only among the caller's own: another user's session is as unknown as one that never was (attack SES-24).
        if not await self._sessions.revoke_own(exchange_of(request), session_of(request), request.path_params["id"]):
            raise NOT_FOUND().error()
        return no_content()
