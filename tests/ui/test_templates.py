"""Each form page, drawn: escaped, labelled, under a policy that lets nothing foreign in."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from routeguard.identity.ui.templates import FORMS, FormTexts, show_form
from routeguard.identity.ui.words import FormError

TEXTS = FormTexts("At least 8 characters.")
HOSTILE = '"><script>alert(1)</script>'


class Seen(HTMLParser):
    """Collects what matters for people who do not see the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def drawn(path: str, **more: object) -> tuple[str, Seen, dict[str, str]]:
    form = {"email": HOSTILE, "name": HOSTILE, "token": HOSTILE}
    response = show_form(FORMS[path], TEXTS, form=form, next_path="/x", **more)  # type: ignore[arg-type]
    html = bytes(response.body).decode()
    return html, Seen(html), dict(response.headers)


@pytest.mark.parametrize("path", FORMS)
def test_every_input_has_a_label_and_nothing_is_a_script(path: str) -> None:
    html, seen, _ = drawn(path)
    ours = re.findall(r'<script nonce="[\w-]{22,}">', html)
    assert html.count("<script") == len(ours)
    labels = {label["for"] for label in seen.all("label")}
    for field in seen.all("input"):
        assert field.get("type") == "hidden" or field.get("aria-hidden") or field["id"] in labels
        if field.get("type") == "password":
            assert field["autocomplete"] in {"current-password", "new-password"}
            assert field["value"] == ""
    assert len(seen.all("h1")) == 1
    assert seen.all("html")[0]["lang"] == "en"


@pytest.mark.parametrize("path", FORMS)
def test_the_form_posts_to_the_endpoint_it_is_named_by(path: str) -> None:
    _, seen, _ = drawn(path)
    own = [form for form in seen.all("form") if form["action"] == path]
    assert [form["method"] for form in own] == ["post"]


def test_an_error_is_said_in_a_summary_and_at_its_field() -> None:
    _, seen, _ = drawn("/auth/sign-up", errors=(FormError("Enter your name.", "name"),), status=422)
    field = next(field for field in seen.all("input") if field["id"] == "name")
    assert field["aria-invalid"] == "true"
    assert "name-fault" in (field["aria-describedby"] or "")
    assert {"name-hint", "name-fault"} <= {paragraph.get("id") for paragraph in seen.all("p")}
    assert any(div.get("role") == "alert" and "autofocus" in div for div in seen.all("div"))
    assert {"href": "#name"} in seen.all("a")


def test_the_headers_let_nothing_foreign_in() -> None:
    html, _, headers = drawn("/auth/sign-in")
    policy = headers["content-security-policy"]
    for part in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    nonce = re.search(r"style-src 'nonce-([\w-]+)'", policy)
    assert nonce is not None
    assert f'<style nonce="{nonce[1]}">' in html
    assert "style=" not in html
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "private, no-store"


def test_a_nonce_is_used_once() -> None:
    assert drawn("/auth/sign-in")[2]["content-security-policy"] != drawn("/auth/sign-in")[2]["content-security-policy"]
