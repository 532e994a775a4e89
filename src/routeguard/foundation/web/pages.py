"""Pages: Jinja templates, always escaped, under a policy that lets nothing foreign in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import Response

from routeguard.core.secret import new_token

if TYPE_CHECKING:
    from pathlib import Path

_EMAIL: Final = re.compile(r"e-mail", re.IGNORECASE)


class Pages:
    """Renders the templates of some folders; of two with one name, that of the earlier folder."""

    __slots__ = ("_environment",)

    def __init__(self, *folders: Path) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(folders),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["unbroken"] = unbroken

    def render(self, name: str, *, status: int = 200, **context: Any) -> Response:
        """Return the template as a page. `nonce` in it names the styles and scripts that may apply."""
        nonce = new_token(16)
        html = self._environment.get_template(name).render(nonce=nonce, **context)
        response = Response(html, status, media_type="text/html")
        response.headers.update(page_headers(nonce))
        return response


def unbroken(text: str) -> Markup:
    """Return `text`, escaped, in which no line breaks within "e-mail". The text itself stays as it is."""
    return Markup(_EMAIL.sub(r'<span class="unbroken">\g<0></span>', str(escape(text))))  # noqa: S704 - escaped before


def page_headers(nonce: str) -> dict[str, str]:
    """Return what every page carries: no foreign content, no frame, no sniffing, nothing kept, no referrer abroad.

    The referrer policy is same-origin and not no-referrer, under which browsers post forms with `Origin: null`.
    """
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        "content-security-policy": policy,
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "private, no-store",
    }
