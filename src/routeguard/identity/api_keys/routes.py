"""API keys over HTTP, under /auth/api-keys, and what `manage_api_keys` does on a route of the application."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import UNSET, Meta, UnsetType
from starlette.convertors import StringConvertor, register_url_convertor

from routeguard.core.credentials import credential_of
from routeguard.core.errors import GuardNotApplied
from routeguard.core.policy import Policy, public
from routeguard.core.problem import MALFORMED_REQUEST, VALIDATION_FAILED, Problem, authentication_required
from routeguard.foundation.web.body import read
from routeguard.foundation.web.reply import no_content, reply
from routeguard.foundation.web.routes import delete, get, patch, post
from routeguard.identity.api_keys.checks import ManagedKeys, NoApiKey
from routeguard.identity.api_keys.models import ApiKey, KeyVerifier, Privilege, are_scopes
from routeguard.identity.api_keys.problems import insufficient_scope
from routeguard.identity.api_keys.service import ApiKeys, NewKey
from routeguard.identity.sessions import checks
from routeguard.identity.sessions.routes import exchange_of, session_of
from routeguard.protection.traffic.body_limit import body_limit
from routeguard.protection.traffic.csrf import csrf
from routeguard.protection.traffic.operations import operation
from routeguard.protection.traffic.site import site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from routeguard.core.services import Services

BODY_LIMIT: Final = 2048
"""Bytes of any body about keys."""
_SCOPES_EXPECTED: Final = "Expected at most 50 scopes such as reports:read or reports:*."


class _KeyId(StringConvertor):
    """Any id but the word of the route beside it, so that other methods of that one stay 405."""

    regex = "(?!verify(?:/|$))[^/]+"


register_url_convertor("api_key", _KeyId())

Moment = Annotated[datetime, Meta(tz=True)]


def routes(services: Services) -> list[Route]:
    """Return the endpoints over the registered `ApiKeys`."""
    endpoints = _Endpoints(services.get(ApiKeys))

    def managed(name: str) -> Policy:
        by_hand = Policy((NoApiKey(),)) & checks.session() & body_limit(BODY_LIMIT)
        return by_hand & operation(services, name, show_remaining=True, on_outage="local")

    # The key is the proof, so that no session is asked for; failures are counted by address. A program's request
    # passes the forgery check; a foreign page's must not try keys from its visitors' addresses.
    anyone = public & csrf() & body_limit(BODY_LIMIT)
    one = "/auth/api-keys/{id:api_key}"
    return [
        get("/auth/api-keys", endpoints.list, managed("api-keys")),
        post("/auth/api-keys", endpoints.create, managed("api-key-create")),
        post("/auth/api-keys/verify", _Verification(services).verify, anyone),
        get(one, endpoints.show, managed("api-key")),
        patch(one, endpoints.update, managed("api-key-update")),
        delete(one, endpoints.revoke, managed("api-key-revoke")),
        post(f"{one}/rotate", endpoints.rotate, managed("api-key-rotate")),
    ]


def key_body(key: ApiKey, *, valid: bool | None = None) -> dict[str, Any]:
    """Return a key as its owner, and a service that was shown it, sees it. Holds nothing of the secret."""
    body: dict[str, Any] = {name: getattr(key, name) for name in ApiKey.__dataclass_fields__}
    return body if valid is None else body | {"valid": valid}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Create:
    name: str
    expires_at: Moment | None = None
    scopes: list[str] = field(default_factory=list)
    privilege: str | UnsetType = UNSET
    networks: list[str] = field(default_factory=list)
    rate: str | None = None
    remaining: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Update:
    name: str | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET
    scopes: list[str] | UnsetType = UNSET
    privilege: str | UnsetType = UNSET
    networks: list[str] | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rotate:
    overlap: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verify:
    key: str | None = field(default=None, repr=False)
    scopes: list[str] = field(default_factory=list)
    privilege: Privilege | None = None


class _Endpoints:
    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def list(self, request: Request) -> Response:
        return reply(await _listed(self._keys, _owner(request)))

    async def create(self, request: Request) -> Response:
        _never_kept(request)
        body = await read(request, _Create, limit=BODY_LIMIT)
        return reply(_shown_once(await self._keys.create(_owner(request), _wished(body))), 201)

    async def show(self, request: Request) -> Response:
        key, valid = await self._keys.find(_owner(request), request.path_params["id"])
        return reply(key_body(key, valid=valid))

    async def update(self, request: Request) -> Response:
        body = await read(request, _Update, limit=BODY_LIMIT)
        key, valid = await self._keys.update(_owner(request), request.path_params["id"], _wished(body))
        return reply(key_body(key, valid=valid))

    async def rotate(self, request: Request) -> Response:
        _never_kept(request)
        body = await read(request, _Rotate, limit=BODY_LIMIT)
        made = await self._keys.rotate(_owner(request), request.path_params["id"], overlap=body.overlap)
        return reply(_shown_once(made))

    async def revoke(self, request: Request) -> Response:
        await self._keys.revoke(_owner(request), request.path_params["id"])
        return no_content()


class _Verification:
    def __init__(self, services: Services) -> None:
        self._verifier: KeyVerifier = services.get(KeyVerifier)
        self._address_of = site_of(services).address

    async def verify(self, request: Request) -> Response:
        exchange = exchange_of(request)
        body = await read(request, _Verify, limit=BODY_LIMIT)
        if not are_scopes(body.scopes):
            # They are repeated in the challenge of a 403, and end up in whatever reads it.
            raise VALIDATION_FAILED(errors=[{"pointer": "/scopes", "detail": _SCOPES_EXPECTED}]).error()
        credential = credential_of(exchange.request)
        if credential is not None and body.key is not None:
            raise MALFORMED_REQUEST(debug="two keys to verify").error()
        if credential is not None and credential.kind == "key":
            text = credential.value
        elif body.key is not None:
            text = body.key.encode("utf-8", "surrogatepass")
        else:
            raise authentication_required("no API key to verify").error()
        found = await self._verifier.verify(text, address=self._address_of(exchange))
        if isinstance(found, Problem):
            raise found.error()
        missing = found.missing_scopes(body.scopes)
        lacking = body.privilege is not None and not found.has_privilege(body.privilege)
        if missing or lacking:
            raise insufficient_scope(required=body.scopes, missing=missing, privilege=body.privilege).error()
        return reply({"valid": True} | key_body(found))


async def perform(services: Services, request: Request) -> dict[str, Any]:
    """Do what the path's `action` says to the caller's own keys, and return the result as JSON-able values.

    For a handler under `manage_api_keys`; the body is JSON of at most 2 KB. Raises ProblemError for what the routes
    under /auth/api-keys refuse, and 403 for a privilege the route does not give; GuardNotApplied elsewhere.
    """
    exchange, keys = exchange_of(request), services.get(ApiKeys)
    managed: ManagedKeys | None = exchange.facts.get(ManagedKeys)
    if managed is None:
        raise GuardNotApplied("a handler took a managed key, and its policy is not manage_api_keys(...)")
    owner, action = _owner(request), request.path_params["action"]
    if action == "list":
        return await _listed(keys, owner)
    if action in {"create", "rotate"}:
        _never_kept(request)
    if action == "create":
        body = await read(request, _Create, limit=BODY_LIMIT)
        return _shown_once(await keys.create(owner, _wished(body), give=managed.update_to))
    return await _change(keys, managed, request, action)


async def _change(keys: ApiKeys, managed: ManagedKeys, request: Request, action: str) -> dict[str, Any]:
    owner = _owner(request)
    if action == "rotate":
        rotate = await read(request, _RotateOne, limit=BODY_LIMIT)
        return _shown_once(await keys.rotate(owner, rotate.id, overlap=rotate.overlap))
    if action == "networks":
        networks = await read(request, _Networks, limit=BODY_LIMIT)
        return _with_standing(await keys.update(owner, networks.id, {"networks": networks.networks}))
    if action == "privilege":
        privilege = await read(request, _Privilege, limit=BODY_LIMIT)
        wished = {"privilege": privilege.privilege}
        return _with_standing(await keys.update(owner, privilege.id, wished, give=managed.update_to))
    named = await read(request, _Named, limit=BODY_LIMIT)
    if action == "revoke":
        await keys.revoke(owner, named.id)
    return _with_standing(await keys.find(owner, named.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _RotateOne:
    id: str
    overlap: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Networks:
    id: str
    networks: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Privilege:
    id: str
    privilege: str


def _owner(request: Request) -> str:
    """Return whose keys these are: the session's user, whatever the client sent (attack KEY-09)."""
    return session_of(request).principal_id


def _never_kept(request: Request) -> None:
    """Raise GuardNotApplied where a mount's de-duplication or idempotency would keep the answer that shows a key.

    Beside `manage_api_keys` they are refused at start-up; no store outside the database holds a key (KEY-15).
    """
    if exchange_of(request).observer is not None:
        raise GuardNotApplied("an answer that shows an API key would be kept: take it from under idempotent()")


async def _listed(keys: ApiKeys, owner: str) -> dict[str, Any]:
    found = await keys.list(owner)
    valid = sum(one for _, one in found)
    listed = [key_body(key, valid=one) for key, one in found]
    return {"api_keys": listed, "total": len(found), "valid": valid, "invalid": len(found) - valid}


def _with_standing(found: tuple[ApiKey, bool]) -> dict[str, Any]:
    key, valid = found
    return key_body(key, valid=valid)


def _shown_once(made: NewKey) -> dict[str, Any]:
    return key_body(made.key) | {"key": made.text}


def _wished(body: _Create | _Update) -> dict[str, Any]:
    """Return the members that were sent, or have a meaning when they were not."""
    members = {name: getattr(body, name) for name in type(body).__dataclass_fields__}
    return {name: value for name, value in members.items() if value is not UNSET}
