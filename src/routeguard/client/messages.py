"""Requests and answers as bytes: paths that stay below the service, JSON read strictly, problems as errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from routeguard.client.errors import UNAVAILABLE, ClientProblem, ServiceUnavailable, StepUpRequired
from routeguard.client.models import Call
from routeguard.core.address import is_loopback
from routeguard.core.errors import ConfigError
from routeguard.core.ports import PORT_RANGE, port_of
from routeguard.core.strict_json import JSONRefused, load_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from routeguard.client.models import Answer

MAXIMUM_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer that are read, after decoding."""

_TARGET: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_DOTS: Final = re.compile(r"(?i)(?:\.|%2e){1,2}")
_STEP_UP: Final = "step-up-required"
_LONGEST_WAIT: Final = 10


def base_of(url: str, *, unsafe_http: bool = False) -> str:
    """Return the service's URL without a slash at its end. Raises ConfigError.

    Only https, except on this very machine: passwords and tokens are in what is sent.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError("a client needs the service's URL, and this one cannot be read") from None
    try:
        port_of(url)
    except ValueError:
        raise ConfigError(f"the service's URL: {PORT_RANGE}") from None
    host = parts.hostname
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError("a client needs the service's URL: https, a host, no query and no password")
    if parts.scheme == "http" and not unsafe_http and not is_loopback(host):
        raise ConfigError("a client speaks https; unsafe_http=True allows http inside a network you trust")
    return url.rstrip("/")


def call(method: str, target: str, json: Any = None, headers: Mapping[str, str] | None = None) -> Call:
    """Return a request below the service's URL. Raises ValueError for any other target.

    An absolute URL, or one with `..` in it, could carry a credential to another server, or to another of this one's
    handlers than the caller meant.
    """
    path = target.partition("?")[0]
    if _TARGET.fullmatch(target) is None or "//" in path or any(_DOTS.fullmatch(part) for part in path.split("/")):
        raise ValueError("the target of a call is an encoded path that begins with one slash")
    sent = {"accept": "application/json", **{name.lower(): value for name, value in (headers or {}).items()}}
    if json is None:
        return Call(method, target, sent)
    return Call(method, target, {**sent, "content-type": "application/json"}, msgspec.json.encode(json))


def segment(text: str) -> str:
    """Return one segment of a path, such as an id that came from somewhere else."""
    return quote(text, safe="")


def content(answer: Answer) -> Any:
    """Return what a successful answer holds: its JSON, or None without one. Raises ClientProblem for all others."""
    if not 200 <= answer.status < 300:
        raise problem_of(answer)
    if not answer.body:
        return None
    try:
        return load_json(answer.body)
    except JSONRefused:
        raise ClientProblem(answer.status, detail="The answer is not JSON: is this the service's URL?") from None


def problem_of(answer: Answer) -> ClientProblem:
    """Return the error that an answer stands for. Whatever is in it, this does not raise."""
    body = _members(answer)
    known: dict[str, Any] = {name: body.pop(name) for name in ("type", "title", "detail") if _is_text(body.get(name))}
    body.pop("status", None)
    known |= {"members": body, "retry_after": _whole(answer.headers.get("retry-after"))}
    if answer.status == UNAVAILABLE:
        return ServiceUnavailable(**known)
    if known.get("type", "").rpartition("/")[2] == _STEP_UP:
        wanted = body.get("acr_values")
        kinds = tuple(wanted.split()) if isinstance(wanted, str) else ()
        return StepUpRequired(answer.status, max_age=_whole(body.get("max_age")), acr_values=kinds, **known)
    return ClientProblem(answer.status, **known)


def is_about(answer: Answer, status: int, code: str) -> bool:
    """Return whether an answer is the problem `code`."""
    return answer.status == status and problem_of(answer).code == code


def _members(answer: Answer) -> dict[str, Any]:
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        body = load_json(answer.body)
    except JSONRefused:
        return {}
    return body if isinstance(body, dict) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _whole(value: object) -> int | None:
    """Return a number of seconds that was sent as text or as a number; None for anything else."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_WAIT else None
