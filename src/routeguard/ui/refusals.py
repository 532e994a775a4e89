"""Refusals as pages: the form again with what is wrong, or one calm page that says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import HTTPConnection

from routeguard.core.decision import Reply
from routeguard.core.redirect import safe_redirect
from routeguard.ui.templates import FORMS, PAGES, FormTexts, show_form
from routeguard.ui.words import explain, form_errors
from routeguard.web.body import TypedForm
from routeguard.web.reply import see_other, wants_page

if TYPE_CHECKING:
    from starlette.responses import Response

    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem


class BrowserRefusals:
    """Implements `core.refusal.RefusalPages`."""

    __slots__ = ("_texts",)

    def __init__(self, texts: FormTexts) -> None:
        self._texts = texts

    def page(self, exchange: Exchange, problem: Problem, instance: str) -> Reply | None:
        """Return the page a browser shows for `problem`; None for every other client."""
        if exchange.request.kind != "http" or not wants_page(HTTPConnection(dict(exchange.request.scope))):
            return None
        response = self._response(exchange, problem, instance)
        extra = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers)
        body = b"" if exchange.request.method == "HEAD" else bytes(response.body)
        return Reply(response.status_code, (*response.raw_headers, *extra, (b"vary", b"Accept, Cookie")), body)

    def _response(self, exchange: Exchange, problem: Problem, instance: str) -> Response:
        request = exchange.request
        # Looked up is only which page to draw; who may post is said on the handlers.
        form = FORMS.get(exchange.route_path) if request.method == "POST" else None
        if problem.type.code == "authentication-required" and request.method == "POST":
            # The session ended while the form stood open; what was typed is not sent on.
            return see_other(f"{exchange.root}/auth/sign-in?next={quote(exchange.root)}/account")
        if form is None:
            return _problem_page(exchange, problem, instance)
        typed = exchange.facts.get(TypedForm)
        fields = dict(typed.fields) if typed is not None else {}
        principal: Any = exchange.principal
        return show_form(
            form, self._texts,
            status=problem.status,
            errors=tuple(form_errors(problem, form.fields, proof=form.proof)),
            form=fields,
            next_path=safe_redirect(fields.get("next"), "", root=exchange.root),
            root=exchange.root,
            email=getattr(getattr(principal, "user", None), "email", ""),
        )  # fmt: skip


def _problem_page(exchange: Exchange, problem: Problem, instance: str) -> Response:
    signed_in = exchange.principal is not None
    return PAGES.render(
        "problem.html", status=problem.status, errors=(), title=problem.type.title, detail=explain(problem),
        number=problem.status, code=problem.type.code, instance=instance,
        root=exchange.root,
        back="/account" if signed_in else "/", back_words="Your account" if signed_in else "Start page",
    )  # fmt: skip
