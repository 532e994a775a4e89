"""The keys that sign access tokens: made, sealed, published ahead, replaced in time, and revoked when stolen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from anyio import to_thread
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key

from routeguard.core.errors import Unavailable
from routeguard.core.periodic import Periodic
from routeguard.core.secret import Purpose, new_token
from routeguard.core.single_flight import SingleFlight
from routeguard.foundation.db.errors import UniqueViolation
from routeguard.foundation.db.sealing import Sealer
from routeguard.foundation.jose.jwk import AnyKey, Key, KeySet
from routeguard.identity.tokens import store

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.core.secret import DeploymentKeys
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.foundation.invalidation.service import Invalidations
    from routeguard.identity.tokens.models import TokenSettings
    from routeguard.identity.tokens.rows import KeyRow

logger = logging.getLogger("routeguard.tokens")

SUBJECT: Final = "signing-keys"
"""What is invalidated when keys change, so that every process reads them anew within a poll of the feed."""
_READ_EVERY: Final = 5.0
"""Seconds between two looks at the keys where no notice says that they changed."""
_PAUSE: Final = 0.25
"""Seconds between two looks that unknown key ids ask for, so that a flood of them does not reach the database."""
_DRAIN: Final = 1.0
_DAY: Final = 86400.0
_TRIES: Final = 5
_PUBLIC_MEMBERS: Final = ("kty", "crv", "x", "y", "n", "e")


class SigningKey(NamedTuple):
    """A key of ours. `signs_from` and `until`, when it may verify no longer, are by the database's clock."""

    generation: int
    key: Key
    keys: KeySet
    signs_from: float
    until: float

    def __repr__(self) -> str:
        return f"SigningKey({self.generation} {self.key.kid})"


class SigningKeys:
    """The keys in force, the same in every process over one database.

    A key is made `publish_ahead` before it signs, so that every copy of the JWKS holds it by then; the one it
    replaces is published until its last token has expired. Of several processes that make the next one at the same
    time one can insert its generation, and all use that. Moments are the database's, so no two clocks are compared.
    A key id begins with the label of the deployment: where deployments of several issuers share a database, each has
    keys of its own. With the database away, the keys that are known go on signing and verifying.
    """

    def __init__(
        self,
        database: Database,
        deployment: DeploymentKeys,
        *,
        clock: SteadyClock,
        settings: TokenSettings,
        feed: Invalidations,
        skew: float,
    ) -> None:
        self._database = database
        self._sealer = Sealer(Purpose.SIGNING_KEYS, deployment)
        self._label = deployment.label
        self._clock = clock
        self._settings = settings
        self._feed = feed
        # The last token of a key, signed by a process whose clock is behind.
        self._overlap = settings.access.total_seconds() + skew
        self._ahead = settings.publish_ahead.total_seconds()
        self._rows: list[KeyRow] = []
        self._last_generation = 0
        self._opened: dict[bytes, Key | None] = {}
        self._keys: tuple[SigningKey, ...] = ()
        self._offset = 0.0
        self._read_at = -math.inf
        self._looks: SingleFlight[None, None] = SingleFlight("routeguard-signing-keys-read")
        self._tending = Periodic("routeguard-signing-keys", self._tend, pause=lambda: _READ_EVERY)
        self._stop_listening: Callable[[], None] | None = None
        self._begun = False
        self.epoch = 0
        """Counts the times that a key was taken out of use before its time: what was verified before is void."""

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the keys, or make the first. A database that is away is waited for; until then nothing is signed."""
        self._stop_listening = self._feed.listen(SUBJECT, self._tending.wake)
        try:
            await self._tend()
        except Unavailable as error:
            logger.warning("signing keys cannot be read yet: %s", error)
        self._tending.start()

    async def close(self) -> None:
        """Stop looking after them. A look that is under way has a moment to end."""
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        await self._tending.close(patience=_DRAIN)
        await self._looks.close(patience=_DRAIN)

    async def ready(self) -> None:
        """Return when there is a key to sign with. Raises Unavailable."""
        self.signer()

    # -- what is asked on the way of requests ----------------------------------------------------------------------

    def signer(self) -> Key:
        """Return the key that signs now. Raises Unavailable before any could be loaded."""
        now = self._now()
        begun = [one for one in self._keys if one.signs_from <= now < one.until]
        if not begun:
            raise Unavailable("signing keys")
        return begun[-1].key

    def find(self, kid: str) -> KeySet | None:
        """Return the key of this id if its tokens still count."""
        now = self._now()
        for one in self._keys:
            if one.key.kid == kid:
                return one.keys if now < one.until else None
        return None

    def jwks(self) -> dict[str, list[dict[str, Any]]]:
        """Return the public halves of the keys in force and of the next (RFC 7517 section 5); of HS256 none."""
        return {"keys": [_public(one.key) for one, _ in self.in_force() if _has_public(one.key)]}

    def in_force(self) -> list[tuple[SigningKey, float]]:
        """Return the keys whose tokens count, newest first, each with the seconds until it signs (0 once it did)."""
        now = self._now()
        return [(one, max(one.signs_from - now, 0.0)) for one in reversed(self._keys) if now < one.until]

    async def refresh(self) -> None:
        """Read the keys anew, for an unknown key id. All who ask at the same time share one look.

        Raises Unavailable.
        """
        await self._looks.run(None, self._read_soon)

    # -- rotation ------------------------------------------------------------------------------------------------------

    async def rotate(self, *, now: bool = False) -> SigningKey:
        """Make the next key and return it; one that waits for its turn already is enough.

        With `now` it signs at once and all others are revoked: their tokens die in every process within a second or
        so. For a key that may have been copied. Raises Unavailable.
        """
        for _ in range(_TRIES):
            await self._read()
            newest = self._keys[-1] if self._keys else None
            if newest is not None and not now and newest.signs_from > self._now():
                return newest
            generation = self._next_generation()
            if await self._make(generation, ahead=0.0 if now or newest is None else self._ahead, revoke=now):
                await self._read()
                return next(one for one in self._keys if one.generation == generation)
        raise Unavailable("signing keys")

    async def _tend(self) -> None:
        """Read the keys, and make the next one when it is time. Raises Unavailable: what is known goes on counting."""
        await self._read()
        live = [row for row in self._rows if row.revoked_at is None]
        if not self._keys:
            await self._make(self._next_generation(), ahead=0.0)
        elif self._now() >= live[-1].signs_from + self._settings.rotation.total_seconds() - self._ahead or (
            # Only once: two processes with two settings would take turns for ever.
            not self._begun and live[-1].algorithm != self._settings.algorithm
        ):
            await self._make(self._next_generation(), ahead=self._ahead)
        else:
            self._begun = True
            return
        self._begun = True
        await self._read()

    async def _make(self, generation: int, *, ahead: float, revoke: bool = False) -> bool:
        """Insert the key of a generation. False when another process did: then that one is everybody's."""
        algorithm, kid = self._settings.algorithm, f"{self._label}.{new_token(12)}"
        native = await to_thread.run_sync(_MAKERS[algorithm])
        public = msgspec.json.encode(_public(Key(kid, (algorithm,), native))).decode() if algorithm != "HS256" else "{}"
        private = msgspec.json.encode(native.as_dict(private=True))
        sealed = self._sealer.seal(private, _bound_to(generation, kid, algorithm, public))
        row = {"generation": generation, "kid": kid, "algorithm": algorithm, "public": public, "sealed": sealed}

        async def work(tx: Transaction) -> None:
            await store.insert_key(tx, ahead=ahead, **row)
            if revoke:
                await store.revoke_keys(tx, before=generation, label=self._label)
            await store.delete_old_keys(tx, keep=self._overlap + _DAY, label=self._label)
            await self._feed.invalidate(tx, SUBJECT)

        try:
            await self._database.run(work)
        except UniqueViolation:
            return False
        logger.info("signing key %s (%s) signs in %d seconds", kid, algorithm, ahead)
        return True

    def _next_generation(self) -> int:
        return self._last_generation + 1

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _read_soon(self) -> None:
        await asyncio.sleep(max(0.0, self._read_at + _PAUSE - self._clock.monotonic()))
        await self._read()

    async def _read(self) -> None:
        asked_at = self._clock.monotonic()
        stored, now = await store.read_keys(self._database)
        rows = [row for row in stored if self._is_own(row.kid)]
        self._read_at, self._offset, self._rows = asked_at, now - asked_at, rows
        self._last_generation = stored[-1].generation if stored else 0
        known, found = {one.key.kid for one in self._keys if now < one.until}, []
        for row in rows:
            if row.revoked_at is None and (key := self._open(row)) is not None:
                later = (other.signs_from for other in rows if other.generation > row.generation)
                until = min(later, default=math.inf) + self._overlap
                found.append(SigningKey(row.generation, key, KeySet([key]), row.signs_from, until))
        self._keys = tuple(found)
        if known - {one.key.kid for one in found}:
            self.epoch += 1
        self._opened = {row.sealed: self._opened[row.sealed] for row in rows if row.sealed in self._opened}

    def _is_own(self, kid: str) -> bool:
        """Whether this deployment made a key, or that is unknown: it is from before key ids had a label."""
        label, dot, _ = kid.partition(".")
        return not dot or label == self._label

    def _now(self) -> float:
        """Return the database's time, as told at the last look and carried on by our own steady clock."""
        return self._offset + self._clock.monotonic()

    # -- sealing -------------------------------------------------------------------------------------------------------

    def _open(self, row: KeyRow) -> Key | None:
        """Return the key in a row, or None when no secret we have opens it: then its tokens are not ours."""
        if row.sealed not in self._opened:
            self._opened[row.sealed] = key = self._decrypt(row)
            if key is None:
                said = "signing key %s is not used: made with another secret, or for another issuer, than those set"
                logger.error(said, row.kid)
        return self._opened[row.sealed]

    def _decrypt(self, row: KeyRow) -> Key | None:
        plain = self._sealer.open(row.sealed, _bound_to(row.generation, row.kid, row.algorithm, row.public))
        if plain is not None:
            with contextlib.suppress(ValueError):
                return Key(row.kid, (row.algorithm,), import_key(msgspec.json.decode(plain)))
        return None


_MAKERS: Final[dict[str, Callable[[], AnyKey]]] = {
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    "ES256": lambda: ECKey.generate_key("P-256"),
    "RS256": lambda: RSAKey.generate_key(2048),
    "HS256": lambda: OctKey.generate_key(256),
}


def _bound_to(generation: int, kid: str, algorithm: str, public: str) -> bytes:
    """Return what a sealed key is authenticated with: none can be moved to another row, or called something else."""
    return f"{generation}:{kid}:{algorithm}:{public}".encode()


def _has_public(key: Key) -> bool:
    return not isinstance(key.native, OctKey)


def _public(key: Key) -> dict[str, Any]:
    """Return the public half of a key: the members named here and no others, so that nothing private leaves."""
    members = key.native.as_dict(private=False)
    shown: dict[str, Any] = {name: members[name] for name in _PUBLIC_MEMBERS if name in members}
    return shown | {"kid": key.kid, "alg": key.algorithms[0], "use": "sig"}
