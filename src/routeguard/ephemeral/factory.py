"""From a setting to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.core.errors import ConfigError
from routeguard.ephemeral.memory import MemoryEphemeral

if TYPE_CHECKING:
    from routeguard.ephemeral.protocol import Ephemeral


def open_ephemeral(url: str) -> Ephemeral:
    """Return the store of `ROUTEGUARD_EPHEMERAL_URL`: `memory://`, `redis://`, `valkey://`, `rediss://`, `valkeys://`.

    ``?cluster=1`` says that the server is one of a cluster's. Does no I/O. Raises ConfigError.
    """
    if url == "memory://":
        return MemoryEphemeral()
    try:
        from routeguard.ephemeral.redis import RedisEphemeral  # noqa: PLC0415 - the `redis` extra is optional
    except ModuleNotFoundError as error:
        if error.name != "hiredis":
            raise
        raise ConfigError("an ephemeral store on Valkey or Redis needs routeguard[redis]") from None
    return RedisEphemeral.from_url(url)
