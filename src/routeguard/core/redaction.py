"""URLs as they may be shown: in findings, in logs, on a terminal."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

HIDDEN: Final = "(hidden)"
_HOST: Final = re.compile(r"[A-Za-z0-9.:_-]*")
_NAME: Final = re.compile(r"[a-z][a-z_]{0,30}")


def redact_url(text: str) -> str:
    """Return a URL without its user, the values of its query and its fragment: drivers take secrets in each of them.

    Where readers could differ on where the host begins, as in `redis://u:a/b@h`, only the scheme is shown.
    """
    scheme, _, rest = text.partition("://")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"{scheme}://{HIDDEN}"
    after = rest.removeprefix(parts.netloc)
    unsure = "@" in after or "\\" in rest or "://" in rest or not _HOST.fullmatch(host)
    if (unsure and scheme != "sqlite") or not rest.startswith(parts.netloc):
        return f"{scheme}://{HIDDEN}"
    netloc = f"[{host}]" if ":" in host else host
    netloc = f"{HIDDEN}@{netloc}" if "@" in parts.netloc else netloc
    netloc = netloc if port is None else f"{netloc}:{port}"
    names = [name if eq and _NAME.fullmatch(name) else "" for name, eq, _ in _pairs(parts.query)]
    query = "&".join(f"{name}={HIDDEN}" if name else HIDDEN for name in names)
    shown = f"{scheme}://{netloc}{parts.path}"
    return shown + (f"?{query}" if query else "") + (f"#{HIDDEN}" if parts.fragment else "")


def _pairs(query: str) -> list[tuple[str, str, str]]:
    return [pair.partition("=") for pair in query.replace(";", "&").split("&") if pair]


def quoted(value: object) -> str:
    """Return a setting as findings quote it: without a user and password, which people write into any address."""
    text = str(value)
    if "@" not in text:
        return repr(value)
    return repr(redact_url(text) if "://" in text else HIDDEN)
