"""API keys come, change and go. The only place that changes them."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from routeguard.core.address import parse_networks
from routeguard.core.errors import ConfigError
from routeguard.core.problem import NOT_FOUND, PERMISSION_DENIED, VALIDATION_FAILED
from routeguard.core.rate import parse_rate
from routeguard.core.secret import digest
from routeguard.core.security_log import note
from routeguard.identity.api_keys import store
from routeguard.identity.api_keys.models import (
    CUSTOM,
    PRIVILEGES,
    ApiKey,
    ApiKeyChanged,
    ApiKeyCreated,
    ApiKeyRevoked,
    ApiKeyRotated,
    are_scopes,
)
from routeguard.identity.api_keys.problems import API_KEY_CONFLICT, TOO_MANY_API_KEYS
from routeguard.identity.api_keys.text import new_id, new_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from routeguard.core.clock import SteadyClock
    from routeguard.core.problem import Problem
    from routeguard.foundation.db.database import Database
    from routeguard.foundation.invalidation.service import Invalidations
    from routeguard.identity.api_keys.models import ApiKeySettings
    from routeguard.identity.api_keys.text import Environment
    from routeguard.identity.api_keys.uses import UseCounter

_NAME_LENGTH: Final = 100
_MOST: Final = 50
"""Networks of one key."""
_KEPT: Final = 100
"""Ended keys an owner still sees in the list."""
_LONGEST_RATE: Final = 60
_LAST_YEAR: Final = 9999
_MOST_USES: Final = 2**31 - 1


class NewKey(NamedTuple):
    """A key with its text, which cannot be shown again."""

    key: ApiKey
    text: str

    def __repr__(self) -> str:
        return f"NewKey({self.key.id})"


class ApiKeys:
    """The API keys of users. Every method takes the owner from the session, never from what the client sent."""

    def __init__(
        self,
        database: Database,
        *,
        clock: SteadyClock,
        settings: ApiKeySettings,
        invalidations: Invalidations,
        uses: UseCounter,
        environment: Environment,
    ) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._feed = invalidations
        self._uses = uses
        self._environment: Environment = environment

    async def create(self, user_id: str, wished: Mapping[str, Any], *, give: Collection[str] = PRIVILEGES) -> NewKey:
        """Make a key of a user and return it with its text.

        `wished` are `name` and perhaps `expires_at`, `scopes`, `privilege`, `networks`, `rate` and `remaining`; without
        a privilege it is `demo`, or `custom` for a key with scopes. `give` are the privileges it may get, and scopes
        only with `custom` among them. Raises ProblemError: 422 for what makes no sense, 403 for what is not given
        here or by the settings, 409 `too-many-api-keys`.
        """
        now, key_id = self._clock.time(), new_id()
        # Said before it is looked at: what is left out is given like what is asked for.
        wished = {"privilege": CUSTOM if wished.get("scopes") else "demo"} | dict(wished)
        values = self._read(wished, now, give)
        text = new_key(self._environment, key_id)
        row: dict[str, Any] = {"scopes": "", "networks": "", "created_at": now} | values
        row |= {"id": key_id, "owner_id": user_id, "user_id": user_id} | _secret(text)
        async with self._database.transaction() as tx:
            # Two creations at once would both find room for the last one.
            await store.lock_user(tx, user_id)
            if await store.count_live(tx, user_id, now=now) >= self._settings.maximum:
                raise TOO_MANY_API_KEYS().error()
            await store.delete_ended(tx, user_id, now=now, keep=_KEPT)
            await store.insert(tx, **row)
            made = await store.find(tx, user_id, key_id)
            if made is None:
                raise NOT_FOUND().error()
            tx.record(ApiKeyCreated(key_id=key_id, owner_id=user_id, user_id=user_id))
            tx.after_commit(partial(note, "api-key-created", user=user_id, key=key_id))
        return NewKey(made.key(), text)

    async def list(self, owner_id: str) -> list[tuple[ApiKey, bool]]:
        """Return an owner's keys, the newest first, each with whether it may be used."""
        async with self._database.read() as tx:
            found = await store.find_all(tx, owner_id)
        now = self._clock.time()
        return [(self._current(one), one.live(now)) for one in found]

    async def find(self, owner_id: str, key_id: str) -> tuple[ApiKey, bool]:
        """Return a key and whether it may be used. Raises ProblemError 404 for a key that is not the owner's."""
        stored = await self._find(owner_id, key_id)
        return self._current(stored), stored.live(self._clock.time())

    async def rotate(self, owner_id: str, key_id: str, *, overlap: float = 0.0) -> NewKey:
        """Give a key a new secret; the one of before works for `overlap` seconds more.

        Of two at once, one wins. Raises ProblemError: 404, 409 `api-key-conflict` for the other one and for a key
        that has ended, 422 for an overlap the settings do not allow.
        """
        # A body may say NaN or Infinity, which are neither less nor more.
        if not 0 <= overlap <= self._settings.overlap.total_seconds():
            raise _invalid("overlap", "This is longer than an old key may go on.").error()
        before = await self._find(owner_id, key_id)
        now, text = self._clock.time(), new_key(self._environment, key_id)
        until = now + overlap if overlap else None
        values = _secret(text) | {"previous_hash": before.secret_hash if overlap else None, "previous_until": until}
        async with self._database.transaction() as tx:
            # Only in place of the secret seen above: the loser is told, and never shown a key that is dead already.
            changed = await store.change(tx, owner_id, key_id, now=now, instead_of=before.secret_hash, **values)
            if not changed:
                raise API_KEY_CONFLICT().error()
            await self._feed.invalidate(tx, key_id)
            tx.record(ApiKeyRotated(key_id=key_id, owner_id=owner_id, overlap_until=until))
            tx.after_commit(partial(note, "api-key-rotated", user=owner_id, key=key_id))
        return NewKey((await self.find(owner_id, key_id))[0], text)

    async def update(
        self, owner_id: str, key_id: str, wished: Mapping[str, Any], *, give: Collection[str] = PRIVILEGES
    ) -> tuple[ApiKey, bool]:
        """Change a key's `name`, `networks`, `privilege`, `scopes` or `expires_at`. Every process learns of it.

        Returns it with whether it may be used. Raises ProblemError: 404, 409 for a key that has ended, 422, and 403
        for a privilege, or scopes, that are not given; see `create`.
        """
        now = self._clock.time()
        values = self._read(wished, now, give)
        await self._find(owner_id, key_id)
        if values:
            async with self._database.transaction() as tx:
                if not await store.change(tx, owner_id, key_id, now=now, **values):
                    raise API_KEY_CONFLICT("This API key was revoked or has expired.").error()
                await self._feed.invalidate(tx, key_id)
                tx.record(ApiKeyChanged(key_id=key_id, owner_id=owner_id, fields=tuple(sorted(values))))
                fields = ",".join(sorted(values))
                tx.after_commit(partial(note, "api-key-updated", user=owner_id, key=key_id, fields=fields))
        return await self.find(owner_id, key_id)

    async def revoke(self, owner_id: str, key_id: str) -> None:
        """End a key for good, everywhere. Raises ProblemError 404 when there is none to end."""
        async with self._database.transaction() as tx:
            if not await store.revoke(tx, owner_id, key_id, now=self._clock.time()):
                raise NOT_FOUND().error()
            await self._feed.invalidate(tx, key_id)
            tx.record(ApiKeyRevoked(key_id=key_id, owner_id=owner_id))
            tx.after_commit(partial(note, "api-key-revoked", user=owner_id, key=key_id))

    async def _find(self, owner_id: str, key_id: str) -> store.StoredKey:
        # Another's key is as unknown as one that never was (attack AZ-01).
        async with self._database.read() as tx:
            found = await store.find(tx, owner_id, key_id)
        if found is None:
            raise NOT_FOUND().error()
        return found

    def _current(self, stored: store.StoredKey) -> ApiKey:
        """Return a key with what this process has counted and not written yet."""
        return self._uses.added_to(stored).key()

    def _read(self, wished: Mapping[str, Any], now: float, give: Collection[str]) -> dict[str, Any]:
        """Return the columns for what was wished. Raises ProblemError 422 with every fault, or 403."""
        values: dict[str, Any] = {}
        faults: list[tuple[str, str]] = []
        for field, value in wished.items():
            try:
                values[field] = _READERS[field](value)
            except (ValueError, ConfigError) as error:
                faults.append((field, str(error) if isinstance(error, ValueError) else _SENTENCES[field]))
        if values.get("expires_at") is not None and values["expires_at"] <= now:
            faults.append(("expires_at", "This is in the past."))
        if faults:
            raise VALIDATION_FAILED(errors=[{"pointer": f"/{name}", "detail": text} for name, text in faults]).error()
        asked = {values["privilege"]} if "privilege" in values else set[str]()
        # Scopes are what a custom key is for: with them, any place on the ladder would do as much.
        asked |= {CUSTOM} if values.get("scopes") else set[str]()
        if not asked <= set(give).intersection(self._settings.privileges):
            raise PERMISSION_DENIED("Keys are not given this privilege here.").error()
        return values


def _secret(text: str) -> dict[str, Any]:
    """Return the columns that tell a key's text again, and its last characters for its owner's eyes."""
    return {"secret_hash": digest(text), "last_four": text[-4:]}


def _invalid(field: str, detail: str) -> Problem:
    return VALIDATION_FAILED(errors=[{"pointer": f"/{field}", "detail": detail}])


def _name(value: str) -> str:
    name = value.strip()
    if not 1 <= len(name) <= _NAME_LENGTH or not name.isprintable():
        raise ValueError("Expected 1 to 100 printable characters.")
    return name


def _privilege(value: str) -> str:
    if value not in PRIVILEGES:
        raise ValueError("Expected custom, demo, restricted, protected or full.")
    return value


def _scopes(value: list[str]) -> str:
    if not are_scopes(value):
        raise ValueError("Expected at most 50 scopes such as reports:read or reports:*.")
    return " ".join(dict.fromkeys(value))


def _networks(value: list[str]) -> str:
    if len(value) > _MOST:
        raise ValueError("Expected at most 50 addresses or ranges.")
    return " ".join(dict.fromkeys(str(network) for network in parse_networks(value)))


def _moment(value: datetime | None) -> float | None:
    if value is not None and value.year >= _LAST_YEAR:
        raise ValueError("This is too far away.")
    return None if value is None else value.timestamp()


def _rate(value: str | None) -> str | None:
    if value is None:
        return None
    if len(value) > _LONGEST_RATE:
        raise ConfigError("too long")
    return str(parse_rate(value))


def _remaining(value: int | None) -> int | None:
    if value is not None and not 1 <= value <= _MOST_USES:
        raise ValueError("Expected a whole number of at least 1.")
    return value


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "name": _name,
    "privilege": _privilege,
    "scopes": _scopes,
    "networks": _networks,
    "expires_at": _moment,
    "rate": _rate,
    "remaining": _remaining,
}
_SENTENCES: Final = {
    "networks": "Expected IP addresses or CIDR ranges without host bits.",
    "rate": "Expected a rate such as 60/minute.",
}
