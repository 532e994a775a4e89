"""Request bodies: read bounded, by their exact media type, into a frozen dataclass, with every error listed."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, get_type_hints
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import ClientDisconnect

from routeguard.core.errors import ProblemError
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.media_types import PARAMETER, PARAMETERS, WORD
from routeguard.core.problem import (
    CONTENT_TOO_LARGE,
    MALFORMED_REQUEST,
    UNSUPPORTED_MEDIA_TYPE,
    VALIDATION_FAILED,
)
from routeguard.core.strict_json import TOO_DEEP, is_too_deep, load_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

T = TypeVar("T")

DEFAULT_LIMIT: Final = 64 * 1024
FORM_TYPE: Final = "application/x-www-form-urlencoded"
JSON_TYPE: Final = "application/json"

_MEDIA_TYPE: Final = re.compile(rf"({WORD}/{WORD})({PARAMETERS})", re.ASCII)
_PARAMETERS: Final = re.compile(rf";[ \t]*+{PARAMETER}", re.ASCII)
_LONGEST_MEDIA_TYPE: Final = 1024
_ACCEPTED: Final = "Send application/json, in UTF-8, or a urlencoded form."
_MOST_FIELDS: Final = 64
_MOST_UNKNOWN: Final = 20
"""Unknown members that are named: an answer of many times the request's size is a gift to a flood."""
_PRINTABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}", re.ASCII)
_OWN_WORDS: Final = re.compile(
    r"(Expected `[^`]*`(?: matching regex)?(?: of length [<>=]+ \d+)?(?: [<>=]+ \d+)?)(?:, got `[a-z |]+`)?"
)
_SHOWN_AGAIN: Final = frozenset({"email", "name", "next", "token"})


@dataclasses.dataclass(frozen=True, slots=True)
class TypedForm:
    """What a form held that it may show again beside an error: never a password or code.

    `token` is the one of a mailed link, in a hidden field, so that a second try needs no second mail. Found in
    `Exchange.facts` under this class, and gone with the request.
    """

    fields: Mapping[str, str]


async def read(request: Request, kind: type[T], *, limit: int = DEFAULT_LIMIT) -> T:
    """Read the body, JSON or a urlencoded form, into `kind`: a frozen dataclass or a msgspec Struct.

    JSON is strict: no coercion, and members that `kind` lacks are refused, so that none is ever assigned by
    accident. Forms hold strings only and may carry fields of the page itself, which are ignored. Raises ProblemError:
    400 for what cannot be read, 413 past `limit` bytes, 415 for another media type or any content coding, 422 with
    `errors` listing each field's JSON pointer (RFC 6901) and fault. Values are never repeated to the caller.
    """
    media_type = _media_type(request)
    raw = await _bounded(request, limit, json=media_type == JSON_TYPE)
    if media_type is None and raw:
        raise _unsupported(f"The body has no Content-Type. {_ACCEPTED}")
    if media_type == FORM_TYPE:
        fields = _parse_form(raw)
        _remember(request, fields)
        return _build(kind, fields, strict=False)
    if not raw:
        return _build(kind, {}, strict=True)
    try:
        data = load_json(raw)
    except ValueError as error:
        raise MALFORMED_REQUEST(str(error)).error() from None
    return _build(kind, data, strict=True)


def media_type_of(values: list[bytes]) -> str | None:
    """Return the one media type of Content-Type fields, lower-case, without parameters; '' when not exactly one.

    None when there is no such field. A charset other than UTF-8 also is ''. Guard and handler both read this, so
    that no spelling is JSON to one and a form to the other (attacks BODY-17, CSRF-09).
    """
    if not values:
        return None
    if len(values) > 1 or len(values[0]) > _LONGEST_MEDIA_TYPE:
        return ""
    match = _MEDIA_TYPE.fullmatch(values[0].decode("latin-1").strip(" \t"))
    if match is None:
        return ""
    for name, value in _PARAMETERS.findall(match[2]):
        if name.lower() == "charset" and value.strip('"').lower() not in {"utf-8", "utf8"}:
            return ""
    return match[1].lower()


def _media_type(request: Request) -> str | None:
    headers = request.scope["headers"]
    codings = b",".join(value for name, value in headers if name == b"content-encoding").strip(b" \t").lower()
    # A thousandfold expansion must not fit under the limit, so no coding is undone (attacks BODY-05, BODY-06).
    if codings not in {b"", b"identity"}:
        raise UNSUPPORTED_MEDIA_TYPE(
            "A content coding is not accepted here.", headers=(("accept-encoding", "identity"),)
        ).error()
    found = media_type_of([value for name, value in headers if name == b"content-type"])
    # A JSON body labelled text/plain needs no preflight in a foreign page (attack CSRF-08).
    if found not in {None, JSON_TYPE, FORM_TYPE}:
        raise _unsupported(_ACCEPTED)
    return found


def _unsupported(detail: str) -> Exception:
    return UNSUPPORTED_MEDIA_TYPE(detail, headers=(("accept", f"{JSON_TYPE}, {FORM_TYPE}"),)).error()


async def _bounded(request: Request, limit: int, *, json: bool) -> bytes:
    """Collect the body, counting what arrives: a declared length may lie. Raises ProblemError 413 or 400.

    JSON over the limit whose beginning is nested too deep is 400: sending less of it would not help (attack BODY-26).
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            chunks.append(chunk)
            if size > limit:
                too_deep = json and is_too_deep(b"".join(chunks))
                raise (MALFORMED_REQUEST(TOO_DEEP) if too_deep else CONTENT_TOO_LARGE()).error()
    except ClientDisconnect:
        raise MALFORMED_REQUEST("The body ended early.", debug="the client disconnected").error() from None
    return b"".join(chunks)


def _parse_form(raw: bytes) -> dict[str, str]:
    """Read a urlencoded form (WHATWG URL section 5.1), but as strict UTF-8 and with each field once."""
    pairs = [pair for pair in raw.split(b"&") if pair]
    if len(pairs) > _MOST_FIELDS:
        raise MALFORMED_REQUEST("The form has too many fields.").error()
    fields: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        try:
            key, text = (unquote_to_bytes(part).decode("utf-8") for part in (name, value))
        except UnicodeDecodeError:
            raise MALFORMED_REQUEST("The form is not UTF-8.").error() from None
        # Of two equal names one reader takes the first and the next the last.
        if key in fields:
            raise MALFORMED_REQUEST("The form holds a field twice.").error()
        fields[key] = text
    return fields


def shown_again(raw: bytes) -> dict[str, str]:
    """Return what a urlencoded form may show again beside an error; nothing of one that cannot be read."""
    try:
        fields = _parse_form(raw)
    except ProblemError:
        return {}
    return {name: fields[name] for name in _SHOWN_AGAIN & fields.keys()}


def _remember(request: Request, fields: Mapping[str, str]) -> None:
    exchange = request.scope.get(SCOPE_KEY)
    if exchange is not None:
        exchange.facts[TypedForm] = TypedForm({name: fields[name] for name in _SHOWN_AGAIN & fields.keys()})


class _Field(NamedTuple):
    name: str
    """The member's name on the wire."""
    attribute: str
    type: Any
    required: bool


@cache
def _fields_of(kind: type[Any]) -> tuple[_Field, ...]:
    if issubclass(kind, msgspec.Struct):
        return tuple(_Field(f.encode_name, f.name, f.type, f.required) for f in msgspec.structs.fields(kind))
    hints = get_type_hints(kind, include_extras=True)
    missing = dataclasses.MISSING
    return tuple(
        _Field(f.name, f.name, hints[f.name], f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(kind)
        if f.init
    )


def _build(kind: type[T], data: Any, *, strict: bool) -> T:
    """Convert field by field, so that the caller learns of every error at once. Raises ProblemError 422."""
    if not isinstance(data, dict):
        raise _invalid([("", "Expected a JSON object.")])
    fields = _fields_of(kind)  # type: ignore[arg-type]  # a class is hashable
    errors: list[tuple[str, str]] = []
    values: dict[str, Any] = {}
    for field in fields:
        if field.name not in data:
            if field.required:
                errors.append((f"/{field.name}", "This field is required."))
            continue
        fault = _convert(data[field.name], field, values, strict=strict)
        if fault is not None:
            errors.append((f"/{field.name}", fault))
    if strict:
        # Mass assignment: an undeclared member is an error and not ignored.
        known = {field.name for field in fields}
        unknown = islice((name for name in data if name not in known), _MOST_UNKNOWN)
        errors += [
            (f"/{name}" if _PRINTABLE_NAME.fullmatch(name) else "", "This field is not known.") for name in unknown
        ]
    if errors:
        raise _invalid(errors)
    try:
        return kind(**values)
    except (ValueError, TypeError):
        raise _invalid([("", "The values do not fit together.")]) from None


def _convert(value: Any, field: _Field, values: dict[str, Any], *, strict: bool) -> str | None:
    """Put the converted value into `values`; return the fault otherwise, in words without the value."""
    # No database text holds NUL: a 500 waiting in PostgreSQL (attack BODY-12).
    if _holds_nul(value):
        return "This field holds a character that is not allowed."
    try:
        values[field.attribute] = msgspec.convert(value, field.type, strict=strict)
    except msgspec.ValidationError as error:
        if "RFC3339" in str(error) or "timezone component" in str(error):
            return "Expected a date and time with its zone, such as 2027-01-31T12:00:00Z."
        match = _OWN_WORDS.match(str(error))
        return f"{match[0]}." if match is not None else "This value is not valid."
    return None


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))


def _invalid(errors: list[tuple[str, str]]) -> Exception:
    listed = [{"pointer": pointer, "detail": detail} for pointer, detail in sorted(errors)]
    return VALIDATION_FAILED(errors=listed).error()
