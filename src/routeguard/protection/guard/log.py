"""One line in the log for every refusal, with the cause the caller is not told."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem

logger: Final = logging.getLogger("routeguard.guard")

_METHOD_LENGTH: Final = 20
_WORD: Final = re.compile(r"[!#-\[\]-~]{1,200}", re.ASCII)
"""What is visible in ASCII, without quotes and backslashes."""


def record(exchange: Exchange, problem: Problem, handler: str, verb: str) -> str:
    """Write the line, and return the id that the answer carries as its `instance`.

    ``refused: GET /x 403 permission-denied handler=app.admin cause="not so: role" principal=usr_... req_...``. Pairs
    without a value are left out. The same pairs are in the record's attribute `routeguard`, for formatters that write
    JSON.
    """
    instance = exchange.request_id
    principal = exchange.principal.principal_id if exchange.principal is not None else None
    request = exchange.request
    pairs = (("handler", handler), ("cause", problem.debug), ("principal", principal))
    words = "".join(f" {name}={_quoted(value)}" for name, value in pairs if value)
    level = logging.ERROR if problem.status >= 500 else logging.INFO
    logger.log(
        level,
        "%s: %s %s %d %s%s %s",
        verb,
        escape(request.method, _METHOD_LENGTH),
        _quoted(request.path),
        problem.status,
        problem.type.code,
        words,
        instance,
        extra={
            "routeguard": {
                "request_id": instance,
                "handler": handler,
                "principal": principal,
                "cause": problem.debug,
            }
        },
    )
    return instance


def escape(text: str, limit: int = 200) -> str:
    """Return text fit for one log line: control characters, quotes and length tamed (attack JWT-09)."""
    return json.dumps(text[:limit])[1:-1]


def _quoted(text: str) -> str:
    """Return one word: as it is, or in quotes. A path with spaces must not add pairs of its own (attack JWT-09)."""
    return text if _WORD.fullmatch(text) else f'"{escape(text)}"'
