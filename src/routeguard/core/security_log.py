"""The security log: one structured line for each sign of an attack (ASVS v5.0.0-16.3)."""

from __future__ import annotations

import json
import logging
import re
from base64 import b32encode
from hashlib import blake2b
from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING, Final

from routeguard.core.secret import Purpose

if TYPE_CHECKING:
    from routeguard.core.address import Address
    from routeguard.core.exchange import Exchange
    from routeguard.core.secret import DeploymentKeys

logger: Final = logging.getLogger("routeguard.security")

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@+~-]{1,200}", re.ASCII)
_LONGEST: Final = 200
_IPV4_PREFIX: Final = 24
_IPV6_PREFIX: Final = 48


def note(event: str, exchange: Exchange | None = None, *, level: int = logging.INFO, **facts: str | None) -> None:
    """Write ``security: EVENT request_id=... name=value ...``; facts that are None are left out.

    The same pairs are in the record's attribute `routeguard`, for formatters that write JSON. `request_id` is the
    `instance` of the answer, or `-` where no request is the cause. Values that are not plain words are quoted as in
    JSON, so that no caller writes lines into the log (attack JWT-09). Never pass an e-mail address or a secret.
    """
    pairs = {"event": event, "request_id": exchange.request_id if exchange is not None else "-"}
    if exchange is not None:
        pairs |= {"method": exchange.request.method, "path": exchange.request.path}
    pairs |= {name: value for name, value in facts.items() if value is not None}
    words = " ".join(f"{name}={_quoted(value)}" for name, value in pairs.items() if name != "event")
    logger.log(level, "security: %s %s", event, words, extra={"routeguard": pairs})


def network_of(address: Address | None) -> str | None:
    """Return where a client is, not who: the /24 of an IPv4 address, the /48 of an IPv6 one."""
    if address is None:
        return None
    return str(ip_network((address, _IPV4_PREFIX if isinstance(address, IPv4Address) else _IPV6_PREFIX), strict=False))


class AccountPseudonyms:
    """Names for accounts that may not exist: the same for the same address, and telling nothing without the key."""

    __slots__ = ("_key",)

    def __init__(self, keys: DeploymentKeys) -> None:
        self._key = keys.derive(Purpose.LOG_SUBJECT)[0]

    def of(self, account: bytes) -> str:
        """Return the name of an account: `sub_` and 80 bits of a keyed BLAKE2b (RFC 7693)."""
        return "sub_" + b32encode(blake2b(account, key=self._key, digest_size=10).digest()).decode().lower()


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value[:_LONGEST])
