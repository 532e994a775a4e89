"""Where a caller may be sent after signing in: somewhere on this origin, or nowhere."""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import quote, unquote

_LONGEST: Final = 2048
"""Of what is given and of what is returned: a character may become twelve in a Location."""
_DECODED_UP_TO: Final = 3
"""Proxies and frameworks decode once or twice; what changes meaning at the third turn is no honest path."""
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\ud800-\udfff]")
_SAFE: Final = "/?#[]@!$&'()*+,;=:%-._~"


def safe_redirect(target: str | None, default: str = "/", *, root: str = "") -> str:
    """Return `target` when it is an absolute path on this origin, else `default`. Never raises.

    With `root`, a percent-encoded prefix such as ``"/api"``, only when it is that path or one below it: what else is
    on this origin may be another application, and not trusted with what a user is sent there for.

    Refused are full and scheme-relative URLs, backslashes, white space and control characters, `//` anywhere in the
    path, dot segments (also as `..;`), each of them percent-encoded up to three times and in Unicode compatibility
    forms (attacks RED-02 to RED-12); a space may stand in a query or a fragment. What is returned is ASCII of one line
    and at most 2,048 characters, fit for a Location header.
    """
    if not isinstance(target, str) or not 1 <= len(target) <= _LONGEST:
        return default
    text = target
    for _ in range(_DECODED_UP_TO + 1):
        if not _is_local(unicodedata.normalize("NFKC", text)) or not _is_local(text):
            return default
        decoded = unquote(text, errors="replace")
        if decoded == text:
            found = quote(target, safe=_SAFE)
            if len(found) > _LONGEST:
                return default
            return found if not root or is_below(re.split(r"[?#]", found, maxsplit=1)[0], root) else default
        text = decoded
    return default


def is_below(path: str, root: str) -> bool:
    """Return whether `path` is `root` or a path below it: ``/api/x`` and ``/api``, but not ``/apiary``."""
    return path == root or path.startswith(f"{root}/")


def _is_local(text: str) -> bool:
    path = re.split(r"[?#]", text, maxsplit=1)[0]
    # Browsers read a backslash as a slash, and drop TAB, CR and LF inside URLs (WHATWG URL section 4.4).
    if not path.startswith("/") or "//" in path or "\\" in path or _has_control(text):
        return False
    # "..;x" is ".." to servers that cut parameters off segments.
    return not any(segment.partition(";")[0] in {".", ".."} for segment in path.split("/"))


def _has_control(text: str) -> bool:
    # A space may stand in a query ("?q=two words") or a fragment, but in no path.
    path, *rest = re.split(r"[?#]", text, maxsplit=1)
    return _CONTROL.search(path + "".join(rest).replace(" ", "")) is not None
