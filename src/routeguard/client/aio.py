"""The async client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from routeguard.client import operations
from routeguard.client.auth import Auth, CookieAuth, KeyAuth
from routeguard.client.errors import ServiceUnavailable
from routeguard.client.messages import base_of
from routeguard.client.models import Await, Finish, Send
from routeguard.client.transport import TIMEOUT, USER_AGENT, answer_of, grown, load_httpx, no_answer, request_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    import httpx2
    from typing_extensions import Self

    from routeguard.client.models import Answer, Call, Flow, ListedSession, Session, Step, TokenPair
    from routeguard.client.operations import Operation

T = TypeVar("T")


class AsyncClient:
    """Calls the identity service at `url`, on asyncio.

    `auth` is a `TokenAuth`, `KeyAuth` or `SignedAuth`; without one the client keeps the session cookie that `sign_in`
    gets. Refusals raise `ClientProblem`; 503 and no answer at all raise `ServiceUnavailable`. No redirect is followed,
    and nothing is sent to another origin. `timeout` is in seconds. `http` is an `httpx2.AsyncClient` of your
    own (proxies, certificates), which you close yourself. Raises ConfigError for a URL that is not https, unless it is
    on this machine or `unsafe_http` is set.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: Auth | None = None,
        http: httpx2.AsyncClient | None = None,
        timeout: float = TIMEOUT,
        user_agent: str = USER_AGENT,
        unsafe_http: bool = False,
    ) -> None:
        self._httpx = load_httpx()
        self.url = base_of(url, unsafe_http=unsafe_http)
        self._auth = auth or CookieAuth()
        self._user_agent = user_agent
        self._own = http is None
        self._http: httpx2.AsyncClient = self._httpx.AsyncClient(timeout=timeout) if http is None else http
        self.api_keys = AsyncApiKeys(self)
        self._running: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, when a renewal that is under way has ended."""
        if self._running:
            await asyncio.wait(self._running)
        if self._own:
            await self._http.aclose()

    # -- who is signed in ------------------------------------------------------------------------------------------

    async def sign_up(self, email: str, password: str, name: str = "") -> None:
        """Ask for an account. The answer does not reveal whether the address has one; no session starts."""
        await self.ask(operations.sign_up(email, password, name))

    async def sign_in(self, email: str, password: str) -> Session:
        """Begin a session and keep its cookie."""
        return await self.ask(operations.sign_in(email, password))

    async def sign_out(self) -> None:
        """End this session."""
        await self.ask(operations.sign_out())

    async def sign_out_everywhere(self) -> None:
        """End all sessions of the user."""
        await self.ask(operations.sign_out(everywhere=True))

    async def session(self) -> Session:
        """Return who is signed in. Raises ClientProblem 401 when no user is."""
        return await self.ask(operations.session())

    async def sessions(self) -> list[ListedSession]:
        """Return all sessions of the user."""
        return await self.ask(operations.sessions())

    async def revoke_session(self, session_id: str) -> None:
        """End one of them. Raises ClientProblem 404 unless it is the user's own."""
        await self.ask(operations.revoke_session(session_id))

    async def csrf(self) -> str:
        """Return a CSRF token, for a page you draw. This client sends its own by itself."""
        return await self.ask(operations.csrf())

    # -- tokens ----------------------------------------------------------------------------------------------------

    async def tokens(self) -> TokenPair:
        """Return tokens for this session, for a `TokenAuth`."""
        return await self.ask(operations.tokens())

    async def refresh(self, refresh_token: str | None = None) -> TokenPair:
        """Renew this client's `TokenAuth` now, or spend the token given and return its successors."""
        return await self._drive(operations.refresh(self._auth, self.url, refresh_token))

    async def introspect(self, token: str, *, hint: str | None = None, address: str | None = None) -> dict[str, Any]:
        """Ask what a user's credential is worth (RFC 7662); only with `SignedAuth`.

        `hint` is access_token, session or api_key; `address` is the user's, for keys that are bound to networks.
        """
        return await self.ask(operations.introspect(token, hint, address))

    # -- passwords -------------------------------------------------------------------------------------------------

    async def password_forgot(self, email: str) -> None:
        """Have a link mailed, if there is an account."""
        await self.ask(operations.password_forgot(email))

    async def password_reset(self, token: str, password: str) -> None:
        """Set a password with the token of such a link."""
        await self.ask(operations.password_reset(token, password))

    async def password_change(self, current_password: str, new_password: str) -> None:
        """Set another password; the user's other sessions end."""
        await self.ask(operations.password_change(current_password, new_password))

    # -- anything else ---------------------------------------------------------------------------------------------

    async def request(
        self, method: str, target: str, *, json: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Call any route of the same server with this client's credential and return its JSON, or None without.

        `target` is an encoded path below `url`, with its query. Raises ValueError for an absolute URL.
        """
        return await self.ask(operations.anything(method, target, json, headers))

    async def ask(self, operation: Operation[T], auth: Auth | None = None) -> T:
        """Make one call of `routeguard.client.operations`, with this client's credential unless another is given."""
        return await self._drive(operation.flow(self.url, auth or self._auth))

    # -- the loop --------------------------------------------------------------------------------------------------

    async def _drive(self, flow: Flow[T]) -> T:
        """Do what a flow asks for until it returns."""
        came: Any = None
        failure: ServiceUnavailable | None = None
        try:
            while True:
                try:
                    step = flow.send(came) if failure is None else flow.throw(failure)
                except StopIteration as end:
                    value: T = end.value
                    return value
                came = failure = None
                try:
                    came = await self._perform(step)
                except ServiceUnavailable as problem:
                    failure = problem
        finally:
            # Cancelled in the middle: the callers that wait for this flow must be told.
            flow.close()

    async def _perform(self, step: Step) -> Answer | None:
        match step:
            case Send(call, cookies):
                return await self._send(call, cookies=cookies)
            case Finish(flow):
                await self._to_the_end(flow)
            case Await(done):
                await asyncio.shield(asyncio.wrap_future(done))
        return None

    async def _to_the_end(self, flow: Flow[Any]) -> None:
        """Run a flow to its end even if the task that waits for it is cancelled."""
        task = asyncio.create_task(self._drive(flow), name="routeguard-renew")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.shield(task)

    async def _send(self, call: Call, *, cookies: bool) -> Answer:
        request = request_of(self._http, self.url, call, user_agent=self._user_agent, cookies=cookies)
        body = bytearray()
        try:
            response = await self._http.send(request, stream=True, auth=None, follow_redirects=False)
            try:
                async for chunk in response.aiter_bytes():
                    grown(body, chunk, response.status_code)
            finally:
                await response.aclose()
        except self._httpx.RequestError as error:
            raise no_answer() from error
        return answer_of(response, body)


class AsyncApiKeys:
    """The API keys of the signed-in user, under `client.api_keys`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self) -> dict[str, Any]:
        """Return all keys, in `api_keys`, with their counts: `total`, `valid`, `invalid`."""
        return await self._client.ask(operations.list_keys())

    async def create(
        self,
        name: str,
        *,
        expires_at: datetime | None = None,
        scopes: Sequence[str] | None = None,
        privilege: str | None = None,
        networks: Sequence[str] | None = None,
        rate: str | None = None,
        remaining: int | None = None,
    ) -> dict[str, Any]:
        """Make a key. Its text is the member `key`, and is never shown again.

        `rate` limits its uses ("100/minute"), `remaining` is how many it has in all.
        """
        fields = {
            "expires_at": expires_at,
            "scopes": scopes,
            "privilege": privilege,
            "networks": networks,
            "rate": rate,
            "remaining": remaining,
        }
        return await self._client.ask(operations.create_key(name, fields))

    async def get(self, key_id: str) -> dict[str, Any]:
        """Return what is known of one."""
        return await self._client.ask(operations.get_key(key_id))

    async def rotate(self, key_id: str, *, overlap: float | None = None) -> dict[str, Any]:
        """Give one a new secret, in the member `key`; the old one works for `overlap` seconds more."""
        return await self._client.ask(operations.rotate_key(key_id, overlap))

    async def update(self, key_id: str, **fields: Any) -> dict[str, Any]:
        """Change `name`, `networks`, `privilege`, `scopes` or `expires_at` of one."""
        return await self._client.ask(operations.update_key(key_id, fields))

    async def revoke(self, key_id: str) -> None:
        """End one."""
        await self._client.ask(operations.revoke_key(key_id))

    async def verify(
        self, key: str, *, scopes: Sequence[str] | None = None, privilege: str | None = None
    ) -> dict[str, Any]:
        """Return what is known of a key that is good, for these scopes and this privilege; ClientProblem otherwise."""
        return await self._client.ask(operations.verify_key(scopes, privilege), KeyAuth(key))
