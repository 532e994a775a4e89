"""The facts of a request as policies saw them, to tell whether a middleware has passed on others since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_NAMES: Final = ("method", "path", "query_string", "client", "scheme", "server")
_MISSING: Final = object()


class Seen:
    """What a policy may look at, as it was in a scope. Kept by value: a middleware may change it where it stands."""

    __slots__ = ("_facts", "_parameters", "client", "headers")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.headers = tuple(scope["headers"])
        self.client = _address(scope)
        self._facts = _facts_of(scope)
        self._parameters = dict(scope.get("path_params") or ())

    def holds(self, scope: Mapping[str, Any]) -> bool:
        """Return whether a scope has the same facts. Routers below add parameters of the path, and change none."""
        headers = scope["headers"]
        if len(headers) != len(self.headers) or self.headers != tuple(headers) or self._facts != _facts_of(scope):
            return False
        found: Mapping[str, Any] = scope.get("path_params") or {}
        return all(found.get(name, _MISSING) == value for name, value in self._parameters.items())

    def same_caller(self, scope: Mapping[str, Any]) -> bool:
        """Return whether what was found out about the caller is still about the same request."""
        return self.headers == tuple(scope["headers"]) and self.client == _address(scope)


def _address(scope: Mapping[str, Any]) -> tuple[Any, ...]:
    return scope.get("scheme"), tuple(scope.get("client") or ()), (scope.get("extensions") or {}).get("tls")


def _facts_of(scope: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(scope.get(name) for name in _NAMES), (scope.get("extensions") or {}).get("tls"))
