"""Routeguard: protects every API route, runs the identity service behind it, and proves that no route was forgotten.

::

    guard = Routeguard()
    app = FastAPI()
    guard.install(app)


    @app.get("/me")
    @guard(guard.session())
    async def me(session: Annotated[UserSession, Depends(guard.current_session)]) -> str:
        return session.user.email
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from routeguard.app import Routeguard as Routeguard
    from routeguard.builtin.features import defaults as defaults
    from routeguard.core.address import client_address as client_address
    from routeguard.core.caller import principal_of as principal_of
    from routeguard.core.cookies import parse_cookies as parse_cookies
    from routeguard.core.credentials import Credential as Credential
    from routeguard.core.decision import Allow as Allow
    from routeguard.core.decision import Refuse as Refuse
    from routeguard.core.decision import Reply as Reply
    from routeguard.core.endings import Ending as Ending
    from routeguard.core.endpoint import Endpoint as Endpoint
    from routeguard.core.errors import ConfigError as ConfigError
    from routeguard.core.errors import GuardNotApplied as GuardNotApplied
    from routeguard.core.errors import ProblemError as ProblemError
    from routeguard.core.errors import RouteguardError as RouteguardError
    from routeguard.core.errors import Unavailable as Unavailable
    from routeguard.core.events import Event as Event
    from routeguard.core.exchange import Exchange as Exchange
    from routeguard.core.feature import Feature as Feature
    from routeguard.core.policy import Attack as Attack
    from routeguard.core.policy import Check as Check
    from routeguard.core.policy import Outcome as Outcome
    from routeguard.core.policy import Policy as Policy
    from routeguard.core.policy import Stage as Stage
    from routeguard.core.policy import deferred as deferred
    from routeguard.core.policy import public as public
    from routeguard.core.principal import Assurance as Assurance
    from routeguard.core.principal import Principal as Principal
    from routeguard.core.problem import Problem as Problem
    from routeguard.core.problem import ProblemType as ProblemType
    from routeguard.core.provided import Provided as Provided
    from routeguard.core.rate import parse_rate as parse_rate
    from routeguard.core.redirect import safe_redirect as safe_redirect
    from routeguard.core.request import RequestView as RequestView
    from routeguard.core.secret import Secret as Secret
    from routeguard.core.security_schemes import SecurityScheme as SecurityScheme
    from routeguard.core.services import Services as Services
    from routeguard.core.setup import Setup as Setup
    from routeguard.core.strict_json import load_json as load_json
    from routeguard.foundation.jose.jwt import verify_jwt as verify_jwt
    from routeguard.foundation.jose.models import InvalidToken as InvalidToken
    from routeguard.identity.api_keys.models import ApiKey as ApiKey
    from routeguard.identity.sessions.checks import session as session
    from routeguard.identity.sessions.identify import ByHeader as ByHeader
    from routeguard.identity.sessions.match import match_user as match_user
    from routeguard.identity.sessions.models import UserSession as UserSession
    from routeguard.identity.users.models import User as User
    from routeguard.protection.guard.refusals import as_detail as as_detail
    from routeguard.protection.traffic.body_limit import body_limit as body_limit
    from routeguard.protection.traffic.callers import api_key as api_key
    from routeguard.protection.traffic.callers import ip as ip
    from routeguard.protection.traffic.callers import plan as plan
    from routeguard.protection.traffic.callers import user as user
    from routeguard.protection.traffic.clients import clients as clients
    from routeguard.protection.traffic.content_types import content_types as content_types
    from routeguard.protection.traffic.cors import cors as cors
    from routeguard.protection.traffic.csrf import csrf as csrf
    from routeguard.protection.traffic.csrf import unsafe_without_csrf as unsafe_without_csrf
    from routeguard.protection.traffic.deduplicate import deduplicate as deduplicate
    from routeguard.protection.traffic.hosts import hosts as hosts
    from routeguard.protection.traffic.idempotent import idempotent as idempotent
    from routeguard.protection.traffic.method import method as method
    from routeguard.protection.traffic.networks import networks as networks
    from routeguard.protection.traffic.rate_limit import rate_limit as rate_limit
    from routeguard.protection.traffic.security_headers import csp_nonce as csp_nonce
    from routeguard.protection.traffic.security_headers import security_headers as security_headers
    from routeguard.protection.traffic.strict_json import strict_json as strict_json
    from routeguard.remote.models import ClientTls as ClientTls
    from routeguard.settings import Settings as Settings
    from routeguard.settings.tables import include_name as include_name
    from routeguard.settings.tables import include_object as include_object

# The same once more for Python, which loads what a program names and not all the rest (docs/decisions/0016).
_MODULES: Final = {
    "identity.api_keys.models": "ApiKey",
    "app": "Routeguard",
    "builtin.features": "defaults",
    "core.address": "client_address",
    "core.caller": "principal_of",
    "core.cookies": "parse_cookies",
    "core.credentials": "Credential",
    "core.decision": "Allow Refuse Reply",
    "core.endings": "Ending",
    "core.endpoint": "Endpoint",
    "core.errors": "ConfigError GuardNotApplied ProblemError RouteguardError Unavailable",
    "core.events": "Event",
    "core.exchange": "Exchange",
    "core.feature": "Feature",
    "core.policy": "Attack Check Outcome Policy Stage deferred public",
    "core.principal": "Assurance Principal",
    "core.problem": "Problem ProblemType",
    "core.provided": "Provided",
    "core.rate": "parse_rate",
    "core.redirect": "safe_redirect",
    "core.request": "RequestView",
    "core.secret": "Secret",
    "core.security_schemes": "SecurityScheme",
    "core.services": "Services",
    "core.setup": "Setup",
    "core.strict_json": "load_json",
    "protection.guard.refusals": "as_detail",
    "foundation.jose.jwt": "verify_jwt",
    "foundation.jose.models": "InvalidToken",
    "remote.models": "ClientTls",
    "identity.sessions.checks": "session",
    "identity.sessions.identify": "ByHeader",
    "identity.sessions.match": "match_user",
    "identity.sessions.models": "UserSession",
    "settings": "Settings",
    "settings.tables": "include_name include_object",
    "protection.traffic.body_limit": "body_limit",
    "protection.traffic.callers": "api_key ip plan user",
    "protection.traffic.clients": "clients",
    "protection.traffic.content_types": "content_types",
    "protection.traffic.cors": "cors",
    "protection.traffic.csrf": "csrf unsafe_without_csrf",
    "protection.traffic.deduplicate": "deduplicate",
    "protection.traffic.hosts": "hosts",
    "protection.traffic.idempotent": "idempotent",
    "protection.traffic.method": "method",
    "protection.traffic.networks": "networks",
    "protection.traffic.rate_limit": "rate_limit",
    "protection.traffic.security_headers": "csp_nonce security_headers",
    "protection.traffic.strict_json": "strict_json",
    "identity.users.models": "User",
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names.split()}
if not TYPE_CHECKING:
    __all__ = tuple(_HOME)


def __getattr__(name: str) -> Any:
    """Return a public name, and load where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
