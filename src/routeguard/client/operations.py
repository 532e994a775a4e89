"""Everything the service can be asked for, said once for both clients: the request, and what its answer is read as."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.client.auth import TokenAuth
from routeguard.client.errors import ClientProblem
from routeguard.client.messages import call, content, segment
from routeguard.client.models import Call, ListedSession, Session, TokenPair
from routeguard.core.errors import ConfigError

if TYPE_CHECKING:
    from routeguard.client.auth import Auth
    from routeguard.client.models import Flow

T = TypeVar("T")

_KEYS: Final = "/auth/api-keys"


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """A call and how its answer is read. After one that `changes` the session, what was bound to it is dropped."""

    call: Call
    read: Callable[[Any], T]
    changes: bool = False

    def flow(self, base: str, auth: Auth) -> Flow[T]:
        """Make the call. Raises ClientProblem."""
        answer = yield from auth.send(base, self.call)
        body = content(answer)
        if self.changes:
            auth.forget()
        try:
            return self.read(body)
        except (KeyError, TypeError, ValueError):
            raise ClientProblem(answer.status, detail="The answer lacks what it should hold.") from None


def sign_up(email: str, password: str, name: str) -> Operation[None]:
    """Ask for an account."""
    return _done("POST", "/auth/sign-up", {"email": email, "password": password, "name": name})


def sign_in(email: str, password: str) -> Operation[Session]:
    """Begin a session."""
    body = {"email": email, "password": password}
    return Operation(call("POST", "/auth/sign-in", body), _session, changes=True)


def sign_out(*, everywhere: bool = False) -> Operation[None]:
    """End this session, or all of the user."""
    return _done("POST", "/auth/sign-out-everywhere" if everywhere else "/auth/sign-out", changes=True)


def session() -> Operation[Session]:
    """Tell who is signed in."""
    return Operation(call("GET", "/auth/session"), _session)


def sessions() -> Operation[list[ListedSession]]:
    """List the user's sessions."""
    return Operation(call("GET", "/auth/sessions"), lambda body: list(body["sessions"]))


def revoke_session(session_id: str) -> Operation[None]:
    """End one of them."""
    return _done("DELETE", f"/auth/sessions/{segment(session_id)}")


def csrf() -> Operation[str]:
    """Get a CSRF token."""
    return Operation(call("GET", "/auth/csrf"), lambda body: str(body["csrf_token"]))


def tokens() -> Operation[TokenPair]:
    """Get tokens for the session."""
    return Operation(call("POST", "/auth/token", {}), _pair)


def refresh(auth: Auth, base: str, refresh_token: str | None) -> Flow[TokenPair]:
    """Renew the client's own tokens, or spend a given refresh token. Raises ConfigError without either."""
    if refresh_token is not None:
        request = call("POST", "/auth/token/refresh", {"refresh_token": refresh_token})
        return (yield from Operation(request, _pair).flow(base, auth))
    if not isinstance(auth, TokenAuth):
        raise ConfigError("there is nothing to refresh: give a refresh token, or make the client with TokenAuth")
    return (yield from auth.renew())


def password_forgot(email: str) -> Operation[None]:
    """Have a link mailed."""
    return _done("POST", "/auth/password/forgot", {"email": email})


def password_reset(token: str, password: str) -> Operation[None]:
    """Set a password with the token of such a link."""
    return _done("POST", "/auth/password/reset", {"token": token, "password": password})


def password_change(current_password: str, new_password: str) -> Operation[None]:
    """Set another password."""
    body = {"current_password": current_password, "new_password": new_password}
    return _done("POST", "/auth/password/change", body, changes=True)


def introspect(token: str, hint: str | None, address: str | None) -> Operation[dict[str, Any]]:
    """Ask what a credential is worth (RFC 7662)."""
    given = {"token": token, "token_type_hint": hint, "address": address}
    return Operation(call("POST", "/oauth/introspect", _given(given)), dict)


def anything(method: str, target: str, json: Any, headers: Mapping[str, str] | None) -> Operation[Any]:
    """Call any route of the server."""
    return Operation(call(method.upper(), target, json, headers), lambda body: body)


def list_keys() -> Operation[dict[str, Any]]:
    """List the caller's API keys."""
    return Operation(call("GET", _KEYS), dict)


def create_key(name: str, fields: Mapping[str, Any]) -> Operation[dict[str, Any]]:
    """Make an API key."""
    return Operation(call("POST", _KEYS, {"name": name} | _given(fields)), dict)


def get_key(key_id: str) -> Operation[dict[str, Any]]:
    """Get what is known of one."""
    return Operation(call("GET", _key(key_id)), dict)


def rotate_key(key_id: str, overlap: float | None) -> Operation[dict[str, Any]]:
    """Give one a new secret."""
    return Operation(call("POST", _key(key_id) + "/rotate", _given({"overlap": overlap})), dict)


def update_key(key_id: str, fields: Mapping[str, Any]) -> Operation[dict[str, Any]]:
    """Change what one may."""
    return Operation(call("PATCH", _key(key_id), dict(fields)), dict)


def revoke_key(key_id: str) -> Operation[None]:
    """End one."""
    return _done("DELETE", _key(key_id))


def verify_key(scopes: Sequence[str] | None, privilege: str | None) -> Operation[dict[str, Any]]:
    """Ask what a key is worth, with the key itself as the only credential."""
    return Operation(call("POST", _KEYS + "/verify", _given({"scopes": scopes, "privilege": privilege})), dict)


def _done(method: str, target: str, body: Any = None, *, changes: bool = False) -> Operation[None]:
    return Operation(call(method, target, body), lambda _: None, changes=changes)


def _key(key_id: str) -> str:
    return f"{_KEYS}/{segment(key_id)}"


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what was not said: the service tells a member that is null from one that is not there."""
    return {name: value for name, value in fields.items() if value is not None}


def _session(body: Any) -> Session:
    return Session(
        user=dict(body["user"]), organization=body["organization"], role=body["role"], expires_at=body["expires_at"]
    )


def _pair(body: Any) -> TokenPair:
    return TokenPair(body["access_token"], body["refresh_token"], int(body["expires_in"]))
