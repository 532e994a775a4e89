"""Sessions whose cookies end with the browser, over HTTP: from sign-in through every cookie that follows from it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from routeguard import Routeguard, Settings
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.protection.traffic.models import TrafficSettings
from tests.accounts import EMAIL, PASSWORD, prepare

URL = "http://127.0.0.1:8000"
BROWSER = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    file: Path = tmp_path_factory.mktemp("remember") / "test.db"
    made = Settings(
        secret=Secret("s" * 32),
        database_url=f"sqlite:///{file}",
        traffic=TrafficSettings(sign_in="off", identity="off"),
    )
    asyncio.run(prepare(made))
    return made


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    app = FastAPI()
    Routeguard(settings).install(app)
    with TestClient(app, base_url=URL, headers={"origin": URL}) as client:
        yield client


def cookies(response: Any) -> dict[str, str]:
    """Return the attributes of each cookie that was set, without its value."""
    lines = [line.partition("=") for line in response.headers.get_list("set-cookie")]
    return {name: value.partition(";")[2] for name, _, value in lines if not value.startswith(";")}


def sign_in(client: TestClient, **more: Any) -> Any:
    answer = client.post("/auth/sign-in", json={"email": EMAIL, "password": PASSWORD, **more})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize(("more", "lasting"), [({}, True), ({"remember": True}, True), ({"remember": False}, False)])
def test_every_cookie_of_a_session_lasts_as_its_user_chose(client: TestClient, more: Any, lasting: bool) -> None:
    answers = [sign_in(client, **more)]
    answers.append(client.post("/auth/token", json={"cookies": True}))
    answers.append(client.post("/auth/token/refresh"))
    change = {"current_password": PASSWORD, "new_password": PASSWORD + " x"}
    back = {"current_password": PASSWORD + " x", "new_password": PASSWORD}
    answers += [client.post("/auth/password/change", json=body) for body in (change, back)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 204, 204]
    found = [cookies(answer) for answer in answers]
    assert all(found)
    for attributes in found:
        assert {("Max-Age" in text) for text in attributes.values()} == {lasting}
    assert {name for one in found for name in one} == {"routeguard", "routeguard-access", "routeguard-refresh"}


def test_a_cookie_made_anew_by_another_process_is_of_the_same_kind(settings: Settings, client: TestClient) -> None:
    sign_in(client, remember=False)
    jar = dict(client.cookies)
    # Its user changed, so the cookie's own word does not count any more and the store is asked.
    asyncio.run(rename(settings))
    app = FastAPI()
    Routeguard(settings).install(app)
    with TestClient(app, base_url=URL, cookies=jar) as other:
        answer = other.get("/auth/session")
    assert answer.json()["user"]["name"] == "Ada L."
    assert list(cookies(answer)) == ["routeguard"]
    assert "Max-Age" not in cookies(answer)["routeguard"]


async def rename(settings: Settings) -> None:
    from routeguard.identity.users.service import Users

    guard: Routeguard[Any] = Routeguard(settings)
    await guard.start()
    database, users = guard.services.get(Database), guard.services.get(Users)
    async with database.transaction() as tx:
        [user] = await users.list(tx)
        await users.update(tx, user.id, name="Ada L.")
    await guard.close()


@pytest.mark.parametrize(("ticked", "lasting"), [({"remember": "false"}, False), ({}, True)])
def test_the_form(client: TestClient, ticked: dict[str, str], lasting: bool) -> None:
    page = client.get("/auth/sign-in", headers=BROWSER)
    assert 'type="checkbox" id="remember" name="remember" value="false"' in page.text
    form = {"email": EMAIL, "password": PASSWORD, "next": "/account", **ticked}
    answer = client.post("/auth/sign-in", data=form, headers=BROWSER, follow_redirects=False)
    assert answer.status_code == 303
    assert ("Max-Age" in cookies(answer)["routeguard"]) is lasting


@pytest.mark.parametrize("wrong", ["no", 0, None, "false"])
def test_another_word_is_refused(client: TestClient, wrong: Any) -> None:
    answer = client.post("/auth/sign-in", json={"email": EMAIL, "password": PASSWORD, "remember": wrong})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/remember"
