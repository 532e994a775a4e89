"""The pages' templates, and what a form page needs to be drawn again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from routeguard.foundation.web.onward import with_next
from routeguard.foundation.web.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from routeguard.identity.ui.words import FormError

FOLDER: Final = Path(__file__).parent / "templates"
PAGES: Final = Pages(FOLDER)


@dataclass(frozen=True, slots=True)
class FormPage:
    """A page whose form posts to one of the service's own endpoints."""

    template: str
    fields: tuple[str, ...]
    """Ids of the inputs an error can be about."""
    proof: str = ""
    """The one in which a signed-in user repeats the password."""
    expired: bool = False
    """Whether the mailed link that opened the page no longer works, so that there is nothing to send."""


FORMS: Final = {
    "/auth/sign-in": FormPage("sign-in.html", ("email", "password")),
    "/auth/sign-up": FormPage("sign-up.html", ("name", "email", "password")),
    "/auth/password/forgot": FormPage("forgot.html", ("email",)),
    "/auth/password/reset": FormPage("reset.html", ("token", "password")),
    "/auth/password/change": FormPage("change-password.html", ("current_password", "new_password"), "current_password"),
    "/auth/email/verify": FormPage("verify.html", ("token",)),
    "/auth/email/resend": FormPage("resend.html", ("email",)),
    "/auth/email/change": FormPage("change-email.html", ("email", "password"), "password"),
    "/account/name": FormPage("change-name.html", ("name",)),
}
"""By the path their forms post to. Only what is shown depends on it; who may post is said on the handlers."""


@dataclass(frozen=True, slots=True)
class FormTexts:
    """Words that depend on settings."""

    password_hint: str


def show_form(
    page: FormPage,
    texts: FormTexts,
    *,
    status: int = 200,
    errors: tuple[FormError, ...] = (),
    notice: str = "",
    form: Mapping[str, str] | None = None,
    next_path: str = "",
    email: str = "",
    root: str = "",
) -> Response:
    """Draw a form: empty, or with what was typed (`form`) and what is wrong with it.

    `root` is the path below which browsers find the application (`Exchange.root`).
    """
    typed: dict[str, Any] = {"email": "", "name": "", "token": ""} | dict(form or {})
    return PAGES.render(
        page.template,
        status=status,
        errors=errors,
        notice_text=notice,
        form=typed,
        next=next_path,
        email=email,
        root=root,
        password_hint=texts.password_hint,
        expired=page.expired,
        next_query=with_next("", next_path),
    )
