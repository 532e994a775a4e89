"""Mails of the identity service: short, in plain text and in HTML that says the same."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from routeguard.foundation.mail.protocol import Message

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class EmailComposer:
    """Writes mails in the name of one site.

    `issuer` is the site's origin and `root_path` the prefix below it, both from the settings and the only source of
    links: neither Host nor any forwarded header can send a token elsewhere (attack ML-07).
    """

    issuer: str
    root_path: str = ""

    @classmethod
    def of(cls, issuer: str, root_path: str = "") -> Self:
        """Return the composer of an origin, with or without a slash at its end."""
        return cls(issuer.rstrip("/"), root_path)

    @property
    def site(self) -> str:
        """The name people know the site by."""
        return urlsplit(self.issuer).netloc

    def link(self, path: str, *, token: str = "") -> str:
        """Return the URL of a page of ours, with a one-time token where it opens one. `path` begins with a slash.

        The token stands in the fragment, which browsers send to no server: it is in no access log, no Referer and no
        log of a proxy (docs/decisions/0008). The page's script puts it into the page's form.
        """
        return f"{self.issuer}{self.root_path}{path}{'#token=' + quote(token, safe='') if token else ''}"

    def write(
        self, to: str, subject: str, *paragraphs: str, link: str | None = None, label: str = "", name: str = ""
    ) -> Message:
        """Return a mail of some paragraphs, then perhaps a link.

        Everything is text: no template is made of it, and the HTML shows markup in a `name` as what was typed
        (attacks ML-13, INJ-05). Give a name only where its owner has proven the address; until then it is a
        stranger's way to write to others through us.
        """
        body = [f"Hello {name}," if name else "Hello,", *paragraphs]
        after = [link] if link is not None else []
        text = "\n\n".join([*body, *after, f"-- \n{self.site}"]) + "\n"
        html = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in body)
        if link is not None:
            html += f'<p><a href="{escape(link)}">{escape(label or link)}</a></p>'
        return Message(to=to, subject=f"{subject} - {self.site}", text=text, html=f"{html}<p>{escape(self.site)}</p>")
