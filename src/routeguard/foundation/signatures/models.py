"""A message as its signature sees it, and the one error for an invalid signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class SignatureError(ValueError):
    """A message signature is missing, malformed or wrong. Its text is for the log and holds nothing of the message."""


@dataclass(frozen=True, slots=True)
class Message:
    """What of a request a signature covers (RFC 9421 section 2).

    `authority` is host and port in lower case, without the scheme's default port; `target` is path and query as they
    were sent. `headers` maps lower-case names to their only value; a field that came twice has to be left out, so
    that a signature over it fails. `body` is the raw content, before anything read it.
    """

    method: str
    authority: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def of(cls, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Self:
        """Take a message from an absolute URL whose path and query are encoded already. Raises ValueError."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        named = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(method, authority_of(url), target, named, body)

    @property
    def path(self) -> str:
        """The absolute path (section 2.2.6)."""
        return self.target.partition("?")[0] or "/"

    @property
    def query(self) -> str:
        """The query with its question mark, which alone stands for an absent one (section 2.2.7)."""
        return "?" + self.target.partition("?")[2]


def authority_of(url: str) -> str:
    """Return host and port of a URL, normalised (RFC 9421 section 2.2.3). Raises ValueError."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    if not host or parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("not an absolute http or https URL")
    host = f"[{host}]" if ":" in host else host
    return host if port in {None, _DEFAULT_PORTS[parts.scheme]} else f"{host}:{port}"
