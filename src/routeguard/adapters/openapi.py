"""What the guard answers, said in FastAPI's own description of the application: derived from each route's policy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError

from routeguard.adapters.errors import invalid
from routeguard.adapters.listing import entries
from routeguard.core.check import optional_method, takes
from routeguard.core.policy import AnyOf, Attack
from routeguard.guard.inventory import required

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi import FastAPI

    from routeguard.core.policy import Policy
    from routeguard.guard.guard import Guard
    from routeguard.guard.inventory import Entry

_SCHEME: Final = "session"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an adapter cannot know of checks: it knows only that there are some."""

    answers: Mapping[type[Any], tuple[int, ...]]
    """Statuses of checks whose counter-examples do not say all, or are long; others are asked for their attacks."""
    unsafe_only: tuple[type[Any], ...]
    """Checks that let safe methods pass."""
    required: type[Any]
    """The check that asks for a session."""
    optional: type[Any]
    """The check that takes a session if there is one."""
    cookie: str | None
    """The name of our session cookie; what the application's own sign-in reads is not known."""


def describe(app: FastAPI, guard: Guard, facts: Facts, *, above: Policy | None = None) -> None:
    """Have ``app.openapi()`` list the guard's refusals and the session cookie. What a handler says itself stays.

    `above` are the policies around an application that is mounted in another. Safe to repeat.
    """
    original = app.openapi
    if hasattr(original, _DESCRIBED):
        return
    done: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        schema = original()
        # FastAPI keeps the description it made, so each is completed once.
        if not (done and done[0] is schema):
            _complete(schema, entries(guard, app, above=above), app, guard, facts)
            done[:] = [schema]
        return schema

    setattr(openapi, _DESCRIBED, True)
    app.openapi = openapi  # type: ignore[method-assign]


def _complete(schema: dict[str, Any], listed: Iterable[Entry], app: FastAPI, guard: Guard, facts: Facts) -> None:
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {}).setdefault("Problem", deepcopy(_PROBLEM))
    if facts.cookie is not None:
        scheme = {"type": "apiKey", "in": "cookie", "name": facts.cookie}
        components.setdefault("securitySchemes", {}).setdefault(_SCHEME, scheme)
    validates = app.exception_handlers.get(RequestValidationError) is invalid
    for operation, method, policy in _operations(schema, listed, guard):
        checks = list(_checks(policy))
        responses = operation.setdefault("responses", {})
        if validates and "HTTPValidationError" in str(responses.get("422")):
            responses["422"] = _response(422)
        for status in sorted(_statuses(facts, checks, method)):
            responses.setdefault(str(status), _response(status))
        if facts.cookie is not None and any(isinstance(check, (facts.required, facts.optional)) for check in checks):
            everybody = not any(isinstance(check, facts.required) for check in policy.checks)
            operation.setdefault("security", [{}, {_SCHEME: []}] if everybody else [{_SCHEME: []}])


def _operations(
    schema: dict[str, Any], listed: Iterable[Entry], guard: Guard
) -> Iterator[tuple[dict[str, Any], str, Policy]]:
    paths = schema.get("paths", {})
    for entry in listed:
        method = entry.method.lower()
        operation = paths.get(_CONVERTER.sub(r"{\1}", entry.path), {}).get(method)
        policy = required(guard, entry)
        if operation is not None and policy is not None:
            yield operation, method, policy


def _checks(policy: Policy) -> Iterator[Any]:
    for check in policy.checks:
        if isinstance(check, AnyOf):
            for branch in check.branches:
                yield from _checks(branch)
        else:
            yield check


def _statuses(facts: Facts, checks: Iterable[Any], method: str) -> set[int]:
    found: set[int] = set()
    for check in checks:
        if method in _SAFE and isinstance(check, facts.unsafe_only):
            continue
        known = facts.answers.get(type(check))
        attacks = optional_method(check, "attacks")
        if known is not None:
            found.update(known)
        elif attacks is not None and takes(attacks):
            shown = attacks()
            if isinstance(shown, Iterable):
                found.update(attack.status for attack in shown if isinstance(attack, Attack))
    return found


def _response(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}
