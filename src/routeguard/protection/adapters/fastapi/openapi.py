"""What the guard answers, said in FastAPI's own description of the application: derived from each route's policy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError

from routeguard.protection.adapters.security import security_of
from routeguard.protection.adapters.starlette.errors import invalid
from routeguard.protection.adapters.starlette.listing import entries
from routeguard.protection.guard.matrix import required

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

    from routeguard.core.policy import Policy
    from routeguard.protection.adapters.security import Credentials
    from routeguard.protection.guard.guard import Guard
    from routeguard.protection.guard.matrix import Entry

_DESCRIBED: Final = "__routeguard_described__"
_SAFE: Final = frozenset({"get", "head", "options", "trace"})
_CONVERTER: Final = re.compile(r"{(\w+):\w+}")
_PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "Why the request was refused (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Decide by this."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The request's id, which is in the log too."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "in": {"type": "string", "enum": ["body", "query", "path", "header", "cookie"]},
                    "pointer": {"type": "string", "description": "RFC 6901; in the body unless `in` says otherwise."},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}


def describe(app: FastAPI, guard: Guard, credentials: Credentials, *, around: tuple[Any, ...] = ()) -> None:
    """Have ``app.openapi()`` list the guard's refusals and the credentials it takes. What a handler says itself stays.

    `around` is what stands around an application that is mounted in another. Safe to repeat.
    """
    original = app.openapi
    if hasattr(original, _DESCRIBED):
        return
    done: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        schema = original()
        # FastAPI keeps the description it made, so each is completed once.
        if not (done and done[0] is schema):
            _complete(schema, entries(guard, app, around=around), app, guard, credentials)
            done[:] = [schema]
        return schema

    setattr(openapi, _DESCRIBED, True)
    app.openapi = openapi  # type: ignore[method-assign]


def _complete(
    schema: dict[str, Any], listed: Iterable[Entry], app: FastAPI, guard: Guard, credentials: Credentials
) -> None:
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {}).setdefault("Problem", deepcopy(_PROBLEM))
    names = _Names(schema, credentials)
    validates = app.exception_handlers.get(RequestValidationError) is invalid
    for operation, method, policy in _operations(schema, listed, guard):
        responses = operation.setdefault("responses", {})
        if validates and "HTTPValidationError" in str(responses.get("422")):
            responses["422"] = _response(422)
        for status in sorted(_statuses(policy, method)):
            responses.setdefault(str(status), _response(status))
        _secure(operation, policy, names, everywhere="security" in schema)


class _Names:
    """The names of our security schemes in one description. A scheme of the application's keeps its name."""

    def __init__(self, schema: dict[str, Any], credentials: Credentials) -> None:
        self.credentials = credentials
        self._components: dict[str, Any] = schema["components"]
        for name in credentials.schemes:
            if name not in credentials.on_demand:
                self.of(name)

    def of(self, name: str) -> str:
        """Return the name a scheme has here, and describe it where it is not yet."""
        schemes, ours = self._components.setdefault("securitySchemes", {}), self.credentials.schemes[name]
        while schemes.setdefault(name, dict(ours)) != ours:
            name = f"routeguard-{name}"
        return name


def _secure(operation: dict[str, Any], policy: Policy, names: _Names, *, everywhere: bool) -> None:
    """Say which credentials open an operation. `everywhere` is whether the description has a rule for all of them."""
    ways = security_of(policy, names.credentials)
    if ways is None or "security" in operation:
        return
    if ways != [[]]:
        operation["security"] = [{names.of(name): [] for name in way} for way in ways]
    elif everywhere:
        operation["security"] = []


def _operations(
    schema: dict[str, Any], listed: Iterable[Entry], guard: Guard
) -> Iterator[tuple[dict[str, Any], str, Policy]]:
    paths = schema.get("paths", {})
    for entry in listed:
        method = entry.handler.method.lower()
        operation = paths.get(_CONVERTER.sub(r"{\1}", entry.handler.path), {}).get(method)
        policy = required(guard, entry)
        if operation is not None and policy is not None:
            yield operation, method, policy


def _statuses(policy: Policy, method: str) -> set[int]:
    found: set[int] = set()
    for check in policy.every():
        if not (check.unsafe_only and method in _SAFE):
            found.update(check.statuses or (attack.status for attack in check.attacks()))
    return found


def _response(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}
