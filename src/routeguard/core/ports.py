"""Ports as operators write them: 1 to 65535 and nothing else, which the network would take modulo 65536."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

LAST_PORT: Final = 65535
PORT_RANGE: Final = f"the port must be a number from 1 to {LAST_PORT}"

_LONGEST: Final = 5


def is_port(text: str) -> bool:
    """Whether `text` is a port in decimal digits."""
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST and 1 <= int(text) <= LAST_PORT


def port_of(url: str) -> int | None:
    """Return the port of a URL, None without one. Raises ValueError for an invalid port, 0 included."""
    port = urlsplit(url).port
    if port == 0:
        raise ValueError(PORT_RANGE)
    return port
