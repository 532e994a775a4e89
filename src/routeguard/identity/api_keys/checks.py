"""API key policies: a key that may be used, may be used for this, and a person where no key will do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import WARNING
from typing import TYPE_CHECKING, Any, ClassVar, Final

from typing_extensions import override

from routeguard.core.credentials import credential_of
from routeguard.core.errors import ConfigError
from routeguard.core.overrides import identified, presented
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.problem import NOT_FOUND, PERMISSION_DENIED, Problem, authentication_required
from routeguard.core.provided import Provided
from routeguard.core.security_log import network_of, note
from routeguard.core.security_schemes import SecurityScheme
from routeguard.identity.api_keys.models import PRIVILEGES, ApiKey, KeyVerifier, Privilege
from routeguard.identity.api_keys.problems import insufficient_scope
from routeguard.protection.traffic.deduplicate import Deduplicate
from routeguard.protection.traffic.idempotent import Idempotent
from routeguard.protection.traffic.site import site_of
from routeguard.protection.traffic.streams import StreamEnd, stream_policy

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

Verify = Callable[["Exchange", bytes], Any]

ACTIONS: Final = ("create", "list", "metadata", "rotate", "revoke", "networks", "privilege")
"""What `manage_api_keys` can do: the values of the path parameter `action`."""

_SCOPE: Final = re.compile(r"[A-Za-z0-9_.\-/]{1,40}(?::[A-Za-z0-9_.\-/:]{1,40})?", re.ASCII)
# Right in form, down to its checksum, and of no key: `00..0` and what CRC-32 makes of it.
_FORGED: Final = "rg_test_" + "0" * 22 + "_" + "0" * 43 + "06b1RS"


_NO_KEYS: Final = (
    "guard.api_key needs the API keys of the identity service, and this guard runs none: with identify= the "
    "application signs its callers in by itself. Let identify return a principal for your own keys, or leave "
    "identify= out"
)


def api_key(*scopes: str, privilege: Privilege | None = None, stream: StreamEnd = "end") -> Policy:
    """Return the policy that asks for an API key: 401 without a valid one.

    `scopes` must all be among the key's, by name or as ``resource:*``; `privilege` is the least it must have on the
    ladder demo < restricted < protected < full, or `custom`, which only a custom key has. Either missing is 403
    `insufficient-scope`. A streamed response ends with the key; ``stream="finish"`` sends one that has begun to its
    end. Raises ConfigError for a word that is neither.
    """
    findings = [f"api_key: {scope!r} is not a scope such as 'reports:read'" for scope in scopes if not _is_scope(scope)]
    if privilege is not None and privilege not in PRIVILEGES:
        findings.append(f"api_key(privilege={privilege!r}) is none of {', '.join(PRIVILEGES)}")
    if findings:
        raise ConfigError(findings)
    required = Policy((ApiKeyRequired(),)) & stream_policy(stream)
    return required & ApiKeyAllowed(scopes, privilege) if scopes or privilege is not None else required


def managed_keys(*, allowed: Iterable[str] = ACTIONS, update_to: Iterable[str] = PRIVILEGES) -> Policy:
    """Return the check of a route of one's own that manages the caller's keys; see `Routeguard.manage_api_keys`."""
    if isinstance(allowed, str) or isinstance(update_to, str):
        raise ConfigError("manage_api_keys takes lists: allowed=('create', 'list')")
    return Policy((ManagedKeys(tuple(allowed), tuple(update_to)),))


@dataclass(frozen=True, slots=True)
class ApiKeyRequired(Check):
    """A live API key in `X-API-Key` or as Bearer."""

    stage = Stage.IDENTITY
    statuses: ClassVar[tuple[int, ...]] = (401, 403, 429, 503)

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the verifier."""
        verify = _verifier(services)

        async def by_key(exchange: Exchange) -> Outcome:
            credential = credential_of(exchange.request)
            if credential is None or credential.kind != "key":
                return _MISSING
            found = await verify(exchange, credential.value)
            if isinstance(found, Problem):
                return found
            exchange.principal = found
            exchange.record_credential(found, credential)
            return None

        return identified(services, ApiKey, by_key, _MISSING)

    @override
    def presents(self, services: Services) -> Callable[[Exchange], bool]:
        """Return what tells whether a key was sent."""
        return presented(services, ApiKey, _presents)

    @override
    def describe(self) -> str:
        return "API key"

    @override
    def attacks(self) -> Iterable[Attack]:
        """Yield no key, made-up keys in each header, and both headers at once."""
        yield Attack(name="no API key", status=401, anonymous=True)
        for name, text in (("X-API-Key", _FORGED), ("Authorization", f"Bearer {_FORGED}")):
            yield Attack(name=f"made-up key in {name}", status=401, anonymous=True, headers=((name.lower(), text),))
        both = (("x-api-key", _FORGED), ("authorization", f"Bearer {_FORGED}"))
        yield Attack(name="two keys at once", status=400, anonymous=True, headers=both)


@dataclass(frozen=True, slots=True)
class ApiKeyAllowed(Check):
    """The key has the scopes, and at least the privilege."""

    stage = Stage.ACCESS  # After the identity: 401 comes before 403.
    statuses: ClassVar[tuple[int, ...]] = (403,)

    scopes: tuple[str, ...] = ()
    privilege: Privilege | None = None

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile."""
        scopes, privilege = self.scopes, self.privilege

        async def allowed(exchange: Exchange) -> Outcome:
            key = exchange.principal
            if not isinstance(key, ApiKey):
                return _MISSING
            missing = key.missing_scopes(scopes)
            if missing or (privilege is not None and not key.has_privilege(privilege)):
                return insufficient_scope(required=scopes, missing=missing, privilege=privilege)
            return None

        return allowed

    @override
    def describe(self) -> str:
        words = [f"scope {' and '.join(self.scopes)}"] if self.scopes else []
        if self.privilege is not None:
            words.append(f"privilege {self.privilege}" + ("" if self.privilege == "custom" else " or more"))
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class NoApiKey(Check):
    """No API key is presented: a key never makes, changes or ends one (attack KEY-11)."""

    stage = Stage.IDENTITY  # Before a session is looked for.
    statuses: ClassVar[tuple[int, ...]] = (403,)

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the verifier."""
        verify = _verifier(services)

        async def by_hand(exchange: Exchange) -> Outcome:
            credential = credential_of(exchange.request)
            if credential is None or credential.kind != "key":
                return None
            found = await verify(exchange, credential.value)
            return found if isinstance(found, Problem) else _BY_KEY

        return by_hand

    @override
    def describe(self) -> str:
        return "not by API key"


@dataclass(frozen=True, slots=True)
class ManagedKeys(Check):
    """The path's `action` is one this route offers. Found in `Exchange.facts` under this class by what performs it."""

    stage = Stage.ACCESS
    statuses: ClassVar[tuple[int, ...]] = (404, 409)

    allowed: tuple[str, ...]
    update_to: tuple[str, ...]

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile. Raises ConfigError for actions and privileges that do not exist."""
        findings = [f"manage_api_keys: there is no action {one!r}" for one in self.allowed if one not in ACTIONS]
        findings += [
            f"manage_api_keys: there is no privilege {one!r}" for one in self.update_to if one not in PRIVILEGES
        ]
        if not self.allowed:
            findings.append("manage_api_keys allows no action at all")
        if findings:
            raise ConfigError(findings)

        async def offered(exchange: Exchange) -> Outcome:
            if exchange.request.scope.get("path_params", {}).get("action") not in self.allowed:
                return _NO_ACTION
            exchange.facts[ManagedKeys] = self
            return None

        return offered

    @override
    def conflicts(self, policy: Policy, handler: Any, kind: str) -> str | None:
        """Refuse to stand beside a check that keeps answers.

        What is kept to be said again would be the text of a key, in clear, outside the database (attack KEY-15).
        """
        if not any(isinstance(check, Idempotent | Deduplicate) for check in policy.every()):
            return None
        return (
            "manage_api_keys: deduplicate() and idempotent() would keep the answer that shows a key, and say it again"
        )

    @override
    def describe(self) -> str:
        return f"own API keys: {', '.join(self.allowed)}"


def _is_scope(scope: object) -> bool:
    return isinstance(scope, str) and _SCOPE.fullmatch(scope) is not None


def _presents(exchange: Exchange) -> bool:
    credential = credential_of(exchange.request)
    return credential is not None and credential.kind == "key"


def _verifier(services: Services) -> Verify:
    """Return the function that verifies what an exchange presents, and notes what was refused."""
    verifier: KeyVerifier | None = services.find(KeyVerifier)
    if verifier is None:
        raise ConfigError(_NO_KEYS)
    address_of = site_of(services).address

    async def verify(exchange: Exchange, key: bytes) -> ApiKey | Problem:
        address = address_of(exchange)
        # For the whole request: another branch of a `|`, or a mount's route, would spend another use (attack KEY-13).
        asked = (KeyVerifier, key, address)
        known: ApiKey | Problem | None = exchange.memo.get(asked)
        if known is not None:
            return known
        found = await verifier.verify(key, address=address)
        if isinstance(found, Problem):
            note("api-key-refused", exchange, level=WARNING, cause=found.debug, network=network_of(address))
        exchange.memo[asked] = found
        return found

    return verify


_MISSING: Final = authentication_required("no API key")
_BY_KEY: Final = PERMISSION_DENIED("API keys cannot manage API keys. Sign in.", debug="an API key manages keys")
_NO_ACTION: Final = NOT_FOUND(debug="an action this route does not offer")


NARROWING: Final = (ApiKeyAllowed,)
"""Checks that refuse a caller whom no other check has identified."""
SCHEMES: Final = (
    SecurityScheme(
        name="apiKey",
        description={"type": "apiKey", "in": "header", "name": "X-API-Key"},
        required_by=(ApiKeyRequired,),
        exclusive=True,
    ),
    # Of its own: an access token in the same field does not open what asks for a key, nor the other way round.
    SecurityScheme(
        name="apiKeyBearer",
        description={"type": "http", "scheme": "bearer", "bearerFormat": "API key"},
        required_by=(ApiKeyRequired,),
        exclusive=True,
    ),
)

PROVIDED: Final = Provided(ApiKey, by=api_key())
