"""From a setting to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.core.errors import ConfigError
from routeguard.foundation.ephemeral.memory import MemoryEphemeral

if TYPE_CHECKING:
    from routeguard.foundation.ephemeral.protocol import Ephemeral


def open_ephemeral(url: str) -> Ephemeral:
    """Return the store of `ROUTEGUARD_EPHEMERAL_URL`: `memory://`, `redis://`, `valkey://`, `rediss://`, `valkeys://`.

    ``?cluster=1`` says that the server is one of a cluster's. Does no I/O. Raises ConfigError.
    """
    if url == "memory://":
        return MemoryEphemeral()
    try:
        from routeguard.foundation.ephemeral.redis import RedisEphemeral  # noqa: PLC0415 - the `redis` extra is optional
    except ModuleNotFoundError as error:
        if error.name != "hiredis":
            raise
        raise ConfigError("an ephemeral store on Valkey or Redis needs routeguard[redis]") from None
    return RedisEphemeral.from_url(url)


class EphemeralCheck:
    """Refuses to begin with a store that refuses us, as a service: it starts after the store.

    A store that is away now may come back while we run; a wrong password does not mend itself.
    """

    def __init__(self, store: Ephemeral) -> None:
        self._store = store

    async def start(self) -> None:
        """Look once. Raises ConfigError."""
        refusal: str | None = getattr(self._store, "refusal", None)
        if refusal is not None:
            raise ConfigError(refusal)
