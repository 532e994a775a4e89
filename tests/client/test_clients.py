"""Both clients against a real service: sign in, be told, be refused, renew once, and lead no credential astray."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import httpx2
import pytest

from routeguard.client import (
    AsyncClient,
    Client,
    ClientProblem,
    KeyAuth,
    ServiceUnavailable,
    StepUpRequired,
    TokenAuth,
    TokenPair,
)
from routeguard.client.auth import CookieAuth
from routeguard.core.errors import ConfigError
from tests.client.conftest import PASSWORD, PATIENCE, Service
from tests.fakes import FakeClock

COVERS = (
    "client/aio",
    "client/auth",
    "client/errors",
    "client/messages",
    "client/models",
    "client/operations",
    "client/sync",
    "client/transport",
)

REFRESH = "/auth/token/refresh"

Maker = Callable[..., Any]


class Waiting:
    """An `AsyncClient` called like a `Client`, so that one test tries both."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*given, **named)
        self.api_keys = _Called(self._client.api_keys, self._runner)

    def __getattr__(self, name: str) -> Any:
        return _Called(self._client, self._runner).__getattr__(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


class _Called:
    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        return lambda *given, **named: self._runner.run(method(*given, **named))


@pytest.fixture(params=[Client, Waiting], ids=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Maker:
    found: Maker = request.param
    return found


def signed_in(make: Maker, service: Service, email: str = "ada@example.com") -> Any:
    client = make(service.url, timeout=PATIENCE)
    client.sign_in(email, PASSWORD)
    return client


def token_pair(service: Service) -> TokenPair:
    with Client(service.url, timeout=PATIENCE) as client:
        client.sign_in("ada@example.com", PASSWORD)
        pair = client.tokens()
    service.seen.clear()
    return pair


def test_a_life_of_a_session(make: Maker, service: Service) -> None:
    with make(service.url, timeout=PATIENCE) as client:
        assert client.sign_up(f"new-{make.__name__}@example.com".lower(), PASSWORD, "New") is None
        with pytest.raises(ClientProblem) as refused:
            client.session()
        assert (refused.value.status, refused.value.code) == (401, "authentication-required")
        with pytest.raises(ClientProblem) as refused:
            client.sign_in("bob@example.com", "not the password")
        assert refused.value.code == "invalid-credentials"
        assert client.sign_in("bob@example.com", PASSWORD)["user"]["email"] == "bob@example.com"
        assert client.session()["user"]["name"] == "bob"
        with signed_in(make, service, "bob@example.com") as other:
            [elsewhere] = [one for one in client.sessions() if not one["current"]]
            client.revoke_session(elsewhere["id"])
            with pytest.raises(ClientProblem):
                other.session()
        with pytest.raises(ClientProblem) as refused:
            client.revoke_session("../../auth/sessions/x y")
        assert refused.value.status == 404
        client.sign_out_everywhere()
        with pytest.raises(ClientProblem):
            client.session()
        client.sign_in("bob@example.com", PASSWORD)
        client.sign_out()
        with pytest.raises(ClientProblem):
            client.session()


def test_passwords(make: Maker, service: Service) -> None:
    with signed_in(make, service, "eve@example.com") as client:
        client.password_change(PASSWORD, "quite another set of words")
        assert client.session()["user"]["email"] == "eve@example.com"
        client.password_change("quite another set of words", PASSWORD)
        assert client.password_forgot("eve@example.com") is None
        with pytest.raises(ClientProblem) as refused:
            client.password_reset("A" * 43, PASSWORD)
        assert refused.value.code == "link-expired"
        with pytest.raises(ClientProblem) as refused:
            client.sign_up("short@example.com", "short")
        assert refused.value.status == 422
        assert refused.value.members


def test_an_unsafe_call_carries_the_csrf_token_fetched_once(make: Maker, service: Service) -> None:
    """CSRF-08: and anew when it has become another session's."""
    auth = CookieAuth()
    with make(service.url, timeout=PATIENCE, auth=auth) as client:
        client.sign_in("ada@example.com", PASSWORD)
        service.seen.clear()
        assert client.request("post", "/api/strict", json={"a": 1}) == {"got": '{"a":1}'}
        client.request("POST", "/api/strict")
        assert len(service.calls("/auth/csrf")) == 1
        client.request("GET", "/api/me")
        assert "x-csrf-token" not in service.calls("/api/me")[0]
        client.sign_in("bob@example.com", PASSWORD)
        client.request("POST", "/api/strict")
        assert len(service.calls("/auth/csrf")) == 2
        # A token that is refused, for whatever reason, is replaced.
        with signed_in(make, service) as other:
            auth._csrf = other.csrf()
        client.request("POST", "/api/strict")
        assert len(service.calls("/api/strict")) == 5


def test_to_step_up_is_told_apart(make: Maker, service: Service) -> None:
    with signed_in(make, service) as client, pytest.raises(StepUpRequired) as refused:
        client.request("POST", "/api/transfer")
    assert (refused.value.status, refused.value.max_age, refused.value.acr_values) == (401, 0, ())


def test_no_redirect_is_followed(make: Maker, service: Service) -> None:
    """RED-14: nor is the credential taken along."""
    with make(service.url, timeout=PATIENCE, auth=TokenAuth(token_pair(service))) as client:
        for method in ("GET", "POST"):
            with pytest.raises(ClientProblem) as refused:
                client.request(method, "/api/away?to=/api/me")
            assert refused.value.status == 307
    assert service.calls("/api/me") == []


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/x",
        "//evil.example/x",
        "/a/../x",
        "/a/%2e%2E/x",
        "/a//b",
        "x",
        "",
        "/a b",
        "/\r\nx",
        "@evil",
    ],
)
def test_no_target_leads_elsewhere(make: Maker, service: Service, target: str) -> None:
    with make(service.url, timeout=PATIENCE) as client, pytest.raises(ValueError, match="encoded path"):
        client.request("GET", target)
    assert service.seen == []


@pytest.mark.parametrize(
    "url", ["http://id.example.com", "ftp://x", "https://", "https://u:p@x", "https://x/?a", "/x", "http://127.0.0.1.x"]
)
def test_a_url_that_would_show_credentials_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Client(url)


def test_a_trusted_network_may_be_said() -> None:
    with Client("http://identity:8000/", unsafe_http=True) as client:
        assert client.url == "http://identity:8000"


def test_a_token_client_sends_no_cookie_and_keeps_none(make: Maker, service: Service) -> None:
    with make(service.url, timeout=PATIENCE, auth=TokenAuth(token_pair(service))) as client:
        assert client.session()["user"]["email"] == "ada@example.com"
        client.sign_in("bob@example.com", PASSWORD)
        assert client.session()["user"]["email"] == "ada@example.com"
        client.request("POST", "/api/strict")
    assert not any("cookie" in headers for _, _, headers in service.seen)
    assert service.calls("/auth/csrf") == []


def test_tokens_are_renewed_before_their_end(make: Maker, service: Service) -> None:
    clock, told = FakeClock(), []
    pair = token_pair(service)
    auth = TokenAuth(pair, clock=clock, on_change=told.append)
    with make(service.url, timeout=PATIENCE, auth=auth) as client:
        client.session()
        assert service.calls(REFRESH) == []
        clock.advance(pair.expires_in - 1)
        client.session()
        client.session()
    assert len(service.calls(REFRESH)) == 1
    assert told == [auth.tokens]
    assert told[0].access_token != pair.access_token


def test_a_401_renews_once_and_repeats_the_call(make: Maker, service: Service) -> None:
    pair = token_pair(service)
    auth = TokenAuth(TokenPair("not.a.token", pair.refresh_token, pair.expires_in))
    with make(service.url, timeout=PATIENCE, auth=auth) as client:
        assert client.request("POST", "/api/strict", json=[1]) == {"got": "[1]"}
        # A 401 that a new token does not change is what the caller gets; the tokens stay.
        with pytest.raises(StepUpRequired):
            client.request("POST", "/api/transfer")
    assert len(service.calls(REFRESH)) == 1
    assert auth.tokens is not None


def test_spent_tokens_end_in_401_without_another_call(make: Maker, service: Service) -> None:
    auth = TokenAuth(TokenPair("not.a.token", "nor this", 600))
    with make(service.url, timeout=PATIENCE, auth=auth) as client:
        with pytest.raises(ClientProblem) as refused:
            client.session()
        assert refused.value.code == "authentication-required"
        assert auth.tokens is None
        service.seen.clear()
        with pytest.raises(ClientProblem) as refused:
            client.session()
        assert refused.value.status == 401
        assert service.seen == []


def test_refresh_by_hand(make: Maker, service: Service) -> None:
    pair = token_pair(service)
    auth = TokenAuth(pair)
    with make(service.url, timeout=PATIENCE, auth=auth) as client:
        assert client.refresh() == auth.tokens != pair
    with make(service.url, timeout=PATIENCE) as client:
        assert client.refresh(auth.tokens.refresh_token).expires_in > 0
        with pytest.raises(ConfigError):
            client.refresh()


def test_threads_and_tasks_renew_once_together(service: Service) -> None:
    pair = token_pair(service)
    auth = TokenAuth(TokenPair("not.a.token", pair.refresh_token, pair.expires_in))
    ready = threading.Barrier(9)

    def in_thread(_: int) -> str:
        ready.wait(60)
        email: str = client.session()["user"]["email"]
        return email

    async def in_tasks() -> list[Any]:
        async with AsyncClient(service.url, timeout=PATIENCE, auth=auth) as tasks:
            return await asyncio.gather(*(tasks.session() for _ in range(16)))

    def loop() -> list[Any]:
        ready.wait(60)
        return asyncio.run(in_tasks())

    with Client(service.url, timeout=PATIENCE, auth=auth) as client, ThreadPoolExecutor(9) as pool:
        others = pool.submit(loop)
        assert set(pool.map(in_thread, range(8))) == {"ada@example.com"}
        assert {one["user"]["email"] for one in others.result(60)} == {"ada@example.com"}
    assert len(service.calls(REFRESH)) == 1


class Flaky(httpx2.HTTPTransport):
    """Does what is asked, but loses the first answers of a path."""

    def __init__(self, path: str, times: int) -> None:
        super().__init__()
        self._path = path
        self.left = times

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        if request.url.path == self._path and self.left > 0:
            self.left -= 1
            response.read()
            response.close()
            raise httpx2.ReadError("lost")
        return response


def test_a_refresh_whose_answer_was_lost_is_not_lost(service: Service) -> None:
    """SES-13: the same client presents the spent token again within the grace."""
    pair = token_pair(service)
    auth = TokenAuth(TokenPair("not.a.token", pair.refresh_token, pair.expires_in))
    with (
        httpx2.Client(transport=Flaky(REFRESH, 1), timeout=PATIENCE) as http,
        Client(service.url, auth=auth, http=http) as client,
    ):
        assert client.session()["user"]["email"] == "ada@example.com"
    assert len(service.calls(REFRESH)) == 2


def test_no_answer_is_unavailable_and_takes_nobody_for_signed_out(service: Service) -> None:
    pair = token_pair(service)
    auth = TokenAuth(TokenPair("not.a.token", pair.refresh_token, pair.expires_in))
    with (
        httpx2.Client(transport=Flaky(REFRESH, 2), timeout=PATIENCE) as http,
        Client(service.url, auth=auth, http=http) as client,
    ):
        with pytest.raises(ServiceUnavailable) as failed:
            client.session()
        assert (failed.value.answered, failed.value.status) == (False, 0)
        assert str(failed.value) == "The service did not answer."
        assert auth.tokens is not None
        assert client.session()["user"]["email"] == "ada@example.com"


@pytest.mark.anyio
async def test_a_task_that_gives_up_does_not_lose_the_renewal(service: Service) -> None:
    """SES-12: a token that was sent may be spent, so its successor has to arrive, wanted or not."""
    entered, let_go = asyncio.Event(), asyncio.Event()

    class Slow(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path == REFRESH:
                entered.set()
                await let_go.wait()
            return await super().handle_async_request(request)

    pair = token_pair(service)
    auth = TokenAuth(TokenPair("not.a.token", pair.refresh_token, pair.expires_in))
    async with (
        httpx2.AsyncClient(transport=Slow(), timeout=PATIENCE) as http,
        AsyncClient(service.url, auth=auth, http=http) as client,
    ):
        impatient = asyncio.create_task(client.session())
        await entered.wait()
        patient = asyncio.create_task(client.session())
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        let_go.set()
        assert (await patient)["user"]["email"] == "ada@example.com"
    assert len(service.calls(REFRESH)) == 1
    assert auth.tokens != pair


def test_a_key_is_sent_in_its_own_header_only(make: Maker, service: Service) -> None:
    with make(service.url, timeout=PATIENCE, auth=KeyAuth("rg_test_x_y")) as client, pytest.raises(ClientProblem):
        client.request("GET", "/api/me")
    [headers] = service.calls("/api/me")
    assert headers["x-api-key"] == "rg_test_x_y"
    assert "authorization" not in headers
    assert "cookie" not in headers


def test_nothing_secret_shows(service: Service) -> None:
    pair = token_pair(service)
    for shown in (repr(pair), repr(TokenAuth(pair)), repr(KeyAuth("rg_test_x_y"))):
        assert pair.access_token not in shown
        assert pair.refresh_token not in shown
        assert "rg_test" not in shown
    with Client(service.url, timeout=PATIENCE) as client, pytest.raises(ClientProblem) as refused:
        client.refresh("a refresh token of somebody")
    assert "somebody" not in f"{refused.value!r} {refused.value} {refused.value.members}"


def test_both_clients_can_do_the_same() -> None:
    for one, other in (
        (Client, AsyncClient),
        (type(Client("https://x").api_keys), type(AsyncClient("https://x").api_keys)),
    ):
        names = {name for name in vars(one) if not name.startswith("_")} - {"close"}
        assert names == {name for name in vars(other) if not name.startswith("_")} - {"aclose"}
        for name in names:
            sync, asynchronous = inspect.signature(vars(one)[name]), inspect.signature(vars(other)[name])
            assert sync.parameters == asynchronous.parameters, name
            assert inspect.iscoroutinefunction(vars(other)[name])
