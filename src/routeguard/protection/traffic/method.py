"""Which methods a handler answers to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from routeguard.core.errors import ConfigError
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.problem import METHOD_NOT_ALLOWED

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

_NAME: Final = re.compile(r"[A-Z]{1,20}", re.ASCII)


def method(*names: str) -> Policy:
    """Return the policy that answers 405 with `Allow` to other methods (RFC 9110 section 15.5.6). GET includes HEAD.

    For handlers that a framework mounts under every method. The request line's method alone counts: no header and
    no form field overrides it (attack CSRF-11).
    """
    return Policy((Method(tuple(names)),))


@dataclass(frozen=True, slots=True)
class Method(Check):
    """The request's method is one of `names`."""

    stage = Stage.TRANSPORT

    names: tuple[str, ...]

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile. Raises ConfigError for a name that no method has."""
        bad = [name for name in self.names if not (isinstance(name, str) and _NAME.fullmatch(name))]
        if bad or not self.names:
            form = "is not a method in capitals: write method('POST', 'PUT')"
            raise ConfigError([f"{name!r} {form}" for name in bad] or "method() needs a name")
        allowed = self._allowed()
        refusal = METHOD_NOT_ALLOWED(headers=(("allow", ", ".join(allowed)),))
        methods = frozenset(allowed)

        async def answers(exchange: Exchange) -> Outcome:
            request = exchange.request
            return None if request.method in methods and request.kind == "http" else refusal

        return answers

    @override
    def describe(self) -> str:
        return " or ".join(self._allowed())

    @override
    def attacks(self) -> Iterable[Attack]:
        """Methods that are not allowed, and one dressed as another."""
        allowed = self._allowed()
        for name in ("DELETE", "TRACE", "FOO", "get", "X" * 1000):
            if name not in allowed:
                yield Attack(name=f"method {name[:8]}", status=405, method=name)
        if "PATCH" not in allowed:
            dressed = (("x-http-method-override", allowed[0]), ("x-method-override", allowed[0]))
            yield Attack(name="method override", status=405, method="PATCH", headers=dressed)

    def _allowed(self) -> tuple[str, ...]:
        return (*self.names, "HEAD") if "GET" in self.names and "HEAD" not in self.names else self.names
