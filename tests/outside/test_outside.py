"""A feature of somebody else plugs in as ours do, by public names alone and one line that lists it."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request

import routeguard
import routeguard.records
from routeguard import ConfigError, Feature, ProblemType, Routeguard, Secret, Settings, defaults, principal_of
from routeguard.testing import acting_as
from tests.servers import run
from tests.steady import until

COVERS = ("core/endpoint", "core/provided", "core/security_schemes")

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent / "devices"
LISTED = "tests.outside.devices:feature"
SECRET = Secret("0123456789abcdef" * 2)
ORIGIN = {"origin": "http://localhost:8000"}
ANN = {"email": "ann@example.com", "password": "correct horse battery staple 9", "name": "Ann"}
PROOF = {"email": ANN["email"], "password": ANN["password"]}


@pytest.fixture(scope="module", autouse=True)
def _its_table_is_of_this_module_only() -> Any:
    """Tables stand in one collection for the whole process, which tests of ours compare with the database."""
    from tests.outside.devices.store import table

    yield
    routeguard.records.metadata.remove(table)


def test_it_imports_public_names_only() -> None:
    public = {
        module.__name__: {name for name in dir(module) if not name.startswith("_")}
        for module in (routeguard, routeguard.records)
    }
    for path in sorted(FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] == "routeguard" for alias in node.names), path
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("routeguard"):
                assert {alias.name for alias in node.names} <= public.get(node.module or "", set()), path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    url = f"sqlite:///{tmp_path / 'outside.db'}"
    (tmp_path / "pyproject.toml").write_text(f'[tool.routeguard]\nfeatures = ["{LISTED}"]\ndatabase_url = "{url}"\n')
    environ = {"ROUTEGUARD_DEVICES_BANNED": "dev_lost"}
    found, findings = Settings.read(environ=environ, directory=tmp_path, secret=SECRET)
    assert findings == []
    return found


@pytest.fixture
async def world(settings: Settings, tmp_path: Path) -> AsyncIterator[tuple[Routeguard[Any], httpx2.AsyncClient]]:
    """An application in which the feature runs, over tables that the command line made."""
    made = run(tmp_path, "migrate", PYTHONPATH=str(Path.cwd()))
    assert "devices_0001" in made.stdout, made.stderr
    from tests.outside.devices.checks import Device, device

    guard = Routeguard(settings)
    app = FastAPI()

    @app.get("/mine")
    @guard(device())
    async def mine(caller: Any = Depends(guard.provided(Device))) -> str:
        return str(caller.id)

    @app.get("/asks")
    async def asks(caller: Any = Depends(guard.provided(Device))) -> str:
        return str(caller.id)

    guard.install(app)
    transport = httpx2.ASGITransport(app=app)
    async with (
        guard.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000", headers=ORIGIN) as client,
    ):
        app.state.guard = guard
        yield guard, client
        described = app.openapi()["paths"]
        assert described["/mine"]["get"]["security"] == [{"device": []}]
        assert described["/asks"]["get"]["security"] == [{"device": []}]


async def test_everything_it_brings_works(world: tuple[Routeguard[Any], httpx2.AsyncClient], tmp_path: Path) -> None:
    from tests.outside.devices.service import Devices

    guard, client = world
    assert (await client.post("/auth/sign-up", json=ANN)).status_code == 201
    # The check, before there is a device; a handler that takes the value is asked the same.
    for path in ("/mine", "/asks", "/auth/devices/me"):
        assert (await client.get(path, headers={"x-device": "dev_1"})).json()["type"].endswith("unknown-device")
    # The sign-in step, by the feature's own setting.
    lost = await client.post("/auth/sign-in", json=PROOF, headers={"x-device": "dev_lost"})
    assert (lost.status_code, lost.json()["type"].rpartition("/")[2]) == (403, "unknown-device")
    assert (await client.post("/auth/devices/dev_1")).status_code == 401
    assert (await client.post("/auth/sign-in", json=PROOF)).status_code == 200
    # A route, its table, and the event that is told after the commit.
    assert (await client.post("/auth/devices/dev_1")).status_code == 201
    devices = guard.services.get(Devices)
    await until(lambda: devices.heard == ["dev_1"])
    for path in ("/mine", "/asks"):
        assert (await client.get(path, headers={"x-device": "dev_1"})).json() == "dev_1"
    assert (await client.get("/auth/devices/me", headers={"x-device": "dev_1"})).json()["user"].startswith("usr_")
    # The page, and the command.
    page = await client.get("/account/devices")
    assert page.headers["content-type"].startswith("text/html")
    ended = run(tmp_path, "devices", PYTHONPATH=str(Path.cwd()), ROUTEGUARD_SECRET=SECRET.reveal().decode())
    assert (ended.stdout, ended.returncode) == ("1 devices\n", 0), ended.stderr


async def test_it_is_ready_only_with_its_table(settings: Settings, tmp_path: Path) -> None:
    from routeguard.foundation.web.health import Readiness

    guard = Routeguard(replace(settings, database_url=f"sqlite:///{tmp_path / 'bare.db'}"))
    with pytest.raises(routeguard.Unavailable):
        await guard.services.get(Readiness).check()


def test_its_command_and_settings_are_listed(settings: Settings, tmp_path: Path) -> None:
    place = {"PYTHONPATH": str(Path.cwd())}
    assert "devices" in run(tmp_path, "--help", **place).stdout
    assert "devices.most" in run(tmp_path, "config", "show", **place).stdout


@pytest.mark.parametrize(
    ("other", "finding"),
    [
        (Feature(name="devices"), "2 features are named devices"),
        (Feature(name="mine", commands={"devices": "a:b"}), "the command devices is declared by mine and by devices"),
        (Feature(name="mine", commands={"migrate": "a:b"}), "the command migrate of mine is one of Routeguard's own"),
        (
            Feature(name="mine", problems=(ProblemType("unknown-device", 400, "", ""),)),
            "the problem code unknown-device is declared by mine and by devices",
        ),
    ],
)
def test_what_another_feature_claims_too_is_found(settings: Settings, other: Feature, finding: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Routeguard(settings, features=[*defaults(), other])
    assert caught.value.findings == (finding,)


def test_a_hook_into_a_change_that_no_feature_makes_is_found(settings: Settings) -> None:
    async def hook(tx: Any, change: Any) -> None: ...

    other = Feature(name="mine", setup=lambda setup: setup.within(int, hook))
    with pytest.raises(ConfigError, match="changes of the class int, which no feature"):
        Routeguard(settings, features=[*defaults(), other])


async def test_its_check_refuses_its_own_attacks() -> None:
    from tests.outside.devices.checks import DeviceRequired

    assert [attack.status for attack in DeviceRequired().attacks()] == [403, 403]


async def test_tests_say_which_of_its_principals_is_calling(settings: Settings) -> None:
    """As they do of sessions and keys: the policy, `presents` in `|` and the handler's value take it."""
    from tests.outside.devices.checks import Device, device

    guard = Routeguard(replace(settings, environment="test", database_url="sqlite://"))
    app = FastAPI()

    @app.get("/mine")
    async def mine(caller: Device = Depends(guard.provided(Device))) -> str:
        return caller.id

    @app.get("/either")
    @guard(guard.session() | device())
    async def either(request: Request) -> str:
        return principal_of(request, Device).id

    guard.install(app)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN["origin"]) as client:
        assert (await client.get("/mine")).status_code == 403
        app.dependency_overrides[guard.provided(Device)] = lambda: Device("dev_test", "usr_1")
        for path in ("/mine", "/either"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (200, "dev_test"), path
        app.dependency_overrides[guard.provided(Device)] = lambda: "no device"
        with pytest.raises(TypeError, match=r"guard.provided\(Device\) returned str, and has to return Device"):
            await client.get("/mine")
        app.dependency_overrides.clear()
        with acting_as(guard, Device("dev_acting", "usr_1")):
            assert (await client.get("/mine")).json() == "dev_acting"
        with acting_as(guard, None):
            assert (await client.get("/mine")).status_code == 401
        assert (await client.get("/mine")).status_code == 403
    await guard.close()
