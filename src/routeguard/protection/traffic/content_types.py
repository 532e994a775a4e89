"""Which media types a handler reads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from routeguard.core.errors import ConfigError
from routeguard.core.media_types import are_parameters
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.problem import UNSUPPORTED_MEDIA_TYPE

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem
    from routeguard.core.services import Services

_WORD: Final = r"[!#$%&'*+.^_`|~0-9a-z-]{1,80}"
_TYPE: Final = re.compile(rf"{_WORD}/{_WORD}", re.ASCII)
_HAS_BODY_WITHOUT_SAYING: Final = frozenset({"2", "2.0", "3", "3.0"})
"""HTTP versions whose framing needs neither Content-Length nor Transfer-Encoding."""


def content_types(*types: str) -> Policy:
    """Return the policy that answers 415 to a body of another media type: ``content_types("application/json")``.

    Compared by type and subtype in any case; parameters such as `charset` are allowed and not looked at. ``"image/*"``
    takes a whole family. A request without a body needs no type. What a simple form of a foreign page can send
    (`text/plain`, no type at all) never reaches a JSON parser this way (attacks CSRF-08 to CSRF-10).
    """
    return Policy((ContentTypes(tuple(types)),))


def media_type(value: bytes) -> bytes:
    """Return type and subtype of a Content-Type value in lower case, empty when it is not one.

    Only spaces may stand before the ';' of parameters, and each of those has a name and a value. What parsers are
    known to read differently, tabs, lists of two types and parameters without a name, is no type here (attack
    BODY-17). Never raises; linear.
    """
    name, semicolon, parameters = value.partition(b";")
    name = name.strip(b" ").lower()
    if not _TYPE.fullmatch(name.decode("latin-1")):
        return b""
    rest = (semicolon + parameters).decode("latin-1").rstrip(" \t")
    return name if not rest or are_parameters(rest) else b""


def _is_type(name: object) -> bool:
    return isinstance(name, str) and _TYPE.fullmatch(name) is not None and not name.startswith("*")


@dataclass(frozen=True, slots=True)
class ContentTypes(Check):
    """The body's media type is one of `types`."""

    stage = Stage.TRANSPORT

    types: tuple[str, ...]

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile. Raises ConfigError for anything that is not a media type in lower case, without parameters."""
        bad = [one for one in self.types if not _is_type(one)]
        if bad or not self.types:
            raise ConfigError(
                [f"{one!r} is not a lower-case media type without parameters, such as 'image/png'" for one in bad]
                or "content_types() needs a media type"
            )
        exact = frozenset(one.encode("ascii") for one in self.types if not one.endswith("/*"))
        families = tuple(one[:-1].encode("ascii") for one in self.types if one.endswith("/*"))

        refused = UNSUPPORTED_MEDIA_TYPE(f"Accepted here: {', '.join(self.types)}.")

        async def readable(exchange: Exchange) -> Outcome:
            request = exchange.request
            value = request.headers.get(b"content-type")
            if value is None:
                return _refuse_untyped(exchange, refused)
            if b"content-type" in request.repeated:
                return refused
            if value in exact:
                return None
            found = media_type(value)
            return None if found in exact or (families and found.startswith(families)) else refused

        return readable

    @override
    def describe(self) -> str:
        return " or ".join(self.types)

    @override
    def attacks(self) -> Iterable[Attack]:
        """JSON in the clothes of a simple form, and types that parsers disagree about."""
        ours = self.types[0].replace("*", "x")
        odd = (
            "text/x-odd",
            f"{ours}\t; charset=utf-8",
            f"{ours}, text/plain",
            f"text/plain;{ours}",
            "",
            "application",
            f"{ours}; =utf-8",
            f"{ours}; charset",
        )
        for kind in odd:
            if media_type(kind.encode()).decode() not in self.types:
                headers = (("content-type", kind),)
                yield Attack(name=f"type {kind!r}", status=415, method="POST", headers=headers, body=b"{}")


def _refuse_untyped(exchange: Exchange, refused: Problem) -> Outcome:
    """Refuse a body without a type. Where a body may come unannounced, allow it no byte."""
    headers = exchange.request.headers
    if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
        return refused
    if exchange.request.scope.get("http_version") in _HAS_BODY_WITHOUT_SAYING:
        exchange.body_limit = 0
    return None
