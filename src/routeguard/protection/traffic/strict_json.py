"""Strict JSON (I-JSON, RFC 7493) for handlers whose framework accepts more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from routeguard.core.errors import GuardNotApplied
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.problem import MALFORMED_REQUEST
from routeguard.core.strict_json import JSONRefused, load_json
from routeguard.protection.traffic.content_types import ContentTypes

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services


def strict_json() -> Policy:
    """Return the policy that takes a body only as `application/json` (415) and as strict JSON (400).

    See `core.strict_json.load_json` for what is refused: members that occur twice, NaN, numbers beyond any type,
    halves of characters. The handler then reads the same bytes, with whatever parser it likes.
    """
    return Policy((ContentTypes(("application/json",)), StrictJson()))


@dataclass(frozen=True, slots=True)
class StrictJson(Check):
    """A body that every JSON parser reads alike."""

    stage = Stage.EXECUTION  # Last: no body is read before it is known that the caller may send one.

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Return the check."""
        return _unambiguous

    @override
    def describe(self) -> str:
        return "strict JSON"

    @override
    def attacks(self) -> Iterable[Attack]:
        """What two parsers read differently (BODY-08 to BODY-11, BODY-22)."""
        headers = (("content-type", "application/json"),)
        for name, body in (
            ("a member twice", b'{"a":1,"a":2}'),
            ("not a number", b'{"a":NaN}'),
            ("a number without end", b'{"a":1e400}'),
            ("digits without end", b'{"a":' + b"9" * 10_000 + b"}"),
            ("half a character", b'{"a":"\\ud800"}'),
            ("two values", b"{}{}"),
        ):
            yield Attack(name=name, status=400, method="POST", headers=headers, body=body)


async def _unambiguous(exchange: Exchange) -> Outcome:
    if exchange.read_body is None:
        raise GuardNotApplied("this adapter offers no body to checks, so JSON cannot be judged before the handler")
    body = await exchange.read_body()
    if not body:
        return None
    try:
        load_json(body)
    except JSONRefused as error:
        return MALFORMED_REQUEST(str(error))
    return None
