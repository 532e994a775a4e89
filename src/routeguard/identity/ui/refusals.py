"""Refusals as pages: the form again with what is wrong, or one calm page that says why."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import anyio
from starlette.requests import HTTPConnection

from routeguard.core.decision import Refuse, Reply
from routeguard.core.errors import ProblemError
from routeguard.core.redirect import safe_redirect
from routeguard.foundation.web.body import TypedForm, shown_again
from routeguard.foundation.web.reply import see_other, wants_page
from routeguard.identity.ui.templates import FORMS, PAGES, FormTexts, show_form
from routeguard.identity.ui.words import explain, form_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem

_TRY_AGAIN: Final = frozenset({409, 429, 503})
"""Refusals after which the same form is sent again."""
_SHORT: Final = 8192
"""Bytes of a form that is read to be shown again."""
_PATIENCE: Final = 2.0


class BrowserRefusals:
    """Implements `core.refusal.RefusalPages`."""

    __slots__ = ("_texts",)

    def __init__(self, texts: FormTexts) -> None:
        self._texts = texts

    async def page(self, exchange: Exchange, problem: Problem, instance: str) -> Reply | None:
        """Return the page a browser shows for `problem`; None for every other client."""
        if exchange.request.kind != "http" or not wants_page(HTTPConnection(dict(exchange.request.scope))):
            return None
        response = await self._response(exchange, problem, instance)
        extra = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers)
        body = b"" if exchange.request.method == "HEAD" else bytes(response.body)
        return Reply(response.status_code, (*response.raw_headers, *extra, (b"vary", b"Accept, Cookie")), body)

    async def _response(self, exchange: Exchange, problem: Problem, instance: str) -> Response:
        request = exchange.request
        # Looked up is only which page to draw; who may post is said on the handlers.
        form = FORMS.get(exchange.route_path) if request.method == "POST" else None
        if problem.type.code == "authentication-required" and request.method == "POST":
            # The session ended while the form stood open; what was typed is not sent on.
            return see_other(f"{exchange.root}/auth/sign-in?next={quote(exchange.root)}/account")
        if form is None:
            return _problem_page(exchange, problem, instance)
        fields = await _typed(exchange, problem)
        form = replace(form, expired=problem.type.code == "link-expired")
        principal: Any = exchange.principal
        return show_form(
            form,
            self._texts,
            status=problem.status,
            errors=tuple(form_errors(problem, form.fields, proof=form.proof)),
            form=fields,
            next_path=safe_redirect(fields.get("next"), "", root=exchange.root),
            root=exchange.root,
            email=getattr(getattr(principal, "user", None), "email", ""),
        )


async def _typed(exchange: Exchange, problem: Problem) -> Mapping[str, str]:
    """Return what the form may show again, reading it where a policy refused before the handler could.

    Only what a page of ours sent, and what is in one piece by now: a refusal does not wait for a slow client, and a
    foreign page puts nothing into our forms.
    """
    typed = exchange.facts.get(TypedForm)
    if typed is not None:
        return dict(typed.fields)
    headers = exchange.request.headers
    length = headers.get(b"content-length", b"")
    if (
        problem.status not in _TRY_AGAIN
        or exchange.read_body is None
        or not isinstance(exchange.decision, Refuse)
        or headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin"
        or not length.isdigit()
        or len(length) > 4
        or int(length) > _SHORT
    ):
        return {}
    raw = b""
    with contextlib.suppress(ProblemError), anyio.move_on_after(_PATIENCE):
        raw = await exchange.read_body()
    return shown_again(raw)


def _problem_page(exchange: Exchange, problem: Problem, instance: str) -> Response:
    return PAGES.render(
        "problem.html",
        status=problem.status,
        errors=(),
        title=problem.type.title,
        detail=explain(problem),
        number=problem.status,
        code=problem.type.code,
        instance=instance,
        root=exchange.root,
        signed_in=exchange.principal is not None,
        at_start=exchange.route_path == "/",
    )
