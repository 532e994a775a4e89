"""Which host names are served: a request for another one is a mistake or an attack."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from routeguard.core.errors import ConfigError
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.ports import is_port
from routeguard.protection.traffic.problems import HOST_NOT_ALLOWED

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

_HOST: Final = re.compile(r"(?:[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)


def hosts(*names: str) -> Policy:
    """Return the policy that answers 400 `host-not-allowed` unless `Host` is exactly one of `names`.

    Written as clients send them, in lower case and with the port unless it is the scheme's own:
    ``hosts("api.example.com", "127.0.0.1:8000")``. Nothing here or elsewhere decides by `Host` which origin is ours.
    """
    return Policy((Hosts(tuple(names)),))


@dataclass(frozen=True, slots=True)
class Hosts(Check):
    """The `Host` field is one of `names`."""

    stage = Stage.TRANSPORT

    names: tuple[str, ...]

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile. Raises ConfigError for a name no client would send, wildcards included."""
        bad = [name for name in self.names if not _is_host(name)]
        if bad or not self.names:
            raise ConfigError(
                [f"host {name!r} must be a lower-case name or address, its port from 1 to 65535" for name in bad]
                or "hosts() needs a name"
            )
        served = frozenset(name.encode("ascii") for name in self.names)

        async def named(exchange: Exchange) -> Outcome:
            request = exchange.request
            host = request.headers.get(b"host")
            # Names are compared without case (RFC 9110 section 4.2.3); the usual spelling needs no conversion.
            if host is None or (host not in served and host.lower() not in served):
                return _REFUSED
            # Two of them: a proxy may have believed the other one.
            return _REFUSED if b"host" in request.repeated else None

        return named

    @override
    def describe(self) -> str:
        return f"host {' or '.join(self.names)}"

    @override
    def attacks(self) -> Iterable[Attack]:
        """Other hosts, and look-alikes of ours."""
        ours = self.names[0]
        others = ("attacker.example", f"{ours}.attacker.example", f"attacker{ours}", f"{ours}:99999", f"{ours}.", "")
        for host in others:
            yield Attack(name=f"host {host}", status=400, headers=(("host", host),))


def _is_host(name: object) -> bool:
    match = _HOST.fullmatch(name) if isinstance(name, str) else None
    return match is not None and (match[1] is None or is_port(match[1]))


_REFUSED: Final = HOST_NOT_ALLOWED()
