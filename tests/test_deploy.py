"""What is in deploy/ agrees with what the package has: settings, options, routes, and the seconds it takes to stop."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from routeguard.cli.graceful import _ALL, _SETTLE
from routeguard.cli.main import app
from routeguard.core.rate import parse_duration
from routeguard.settings import Settings
from routeguard.web.health import health_routes

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy"
DOCS = (ROOT / "docs" / "how-to" / "deploy.md").read_text("utf-8")
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
STOPPING = _ALL + _SETTLE


def yaml_of(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((FOLDER / "routeguard@.service").read_text("utf-8"))
    return parser


def commands() -> Iterator[tuple[str, list[str], float]]:
    """Yield each command that is run: where, its arguments, and the seconds it is given to stop after the signal."""
    kubernetes = yaml_of("kubernetes.yaml")[0]["spec"]["template"]["spec"]
    grace = kubernetes["terminationGracePeriodSeconds"]
    for container in (*kubernetes["initContainers"], *kubernetes["containers"]):
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        yield f"kubernetes {container['name']}", container["args"], grace - before
    service = unit()["Service"]
    stop = float(service["TimeoutStopSec"])
    for option in ("ExecStartPre", "ExecStart"):
        yield f"systemd {option}", service[option].replace("%i", "8001").split()[1:], stop
    default = re.search(r"^CMD (\[.*\])$", (FOLDER / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert default is not None
    compose = yaml_of("compose.yaml")[0]["services"]
    yield "docker", json.loads(default[1]), parse_duration(compose["routeguard"]["stop_grace_period"]).total_seconds()
    yield "compose migrate", compose["migrate"]["command"], 10


COMMANDS = list(commands())


@pytest.mark.parametrize(("where", "arguments", "seconds"), COMMANDS, ids=[where for where, *_ in COMMANDS])
def test_every_command_can_be_run_and_has_time_to_stop(where: str, arguments: list[str], seconds: float) -> None:
    command, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    assert command.__name__ == arguments[0]
    if command.__name__ == "serve":
        drain = parse_duration(bound.arguments["drain"]).total_seconds()
        assert drain + STOPPING < seconds


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_only_settings_there_are(path: Path) -> None:
    """A misspelt variable stops the start, and whoever copied it from here would wonder."""
    text = path.read_text("utf-8")
    names = set(re.findall(r"\bROUTEGUARD_[A-Z_]+", text))
    _, findings = Settings.read(environ=dict.fromkeys(names, ""), directory=Path("/nonexistent"))
    assert not [finding for finding in findings if "is not a setting" in finding]
    # What is to be filled in must not work as it stands (attack OPS-11).
    assert not re.search(r"ROUTEGUARD_SECRET=.", text)


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_only_probes_there_are(path: Path) -> None:
    asked = set(re.findall(r"/(?:healthz|readyz|health|ready|livez)\b", path.read_text("utf-8")))
    assert asked <= {route.path for route in health_routes(lambda: None)}  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_the_page_names_every_file(path: Path) -> None:
    assert f"deploy/{path.name}" in DOCS


def test_kubernetes() -> None:
    deployment, service, budget, scaler = yaml_of("kubernetes.yaml")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
        assert selector.items() <= labels.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    main = pod["spec"]["containers"][0]
    assert main["ports"][0]["name"] == service["spec"]["ports"][0]["targetPort"]
    assert main["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert main["readinessProbe"]["httpGet"]["path"] == "/readyz"
    # As long as /readyz may take to say no: it gives a part two seconds.
    assert main["readinessProbe"]["timeoutSeconds"] > 2
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert main["securityContext"]["readOnlyRootFilesystem"]
    assert {one["image"] for one in (main, *pod["spec"]["initContainers"])} == {main["image"]}


def test_compose() -> None:
    made = yaml_of("compose.yaml")[0]
    services = made["services"]
    for service in services.values():
        needed = service.get("depends_on", {})
        assert set(needed) <= set(services)
        assert set(service["networks"]) <= set(made["networks"])
    assert (ROOT / "deploy" / services["routeguard"]["build"]["dockerfile"]).resolve().name == "Dockerfile"
    subnet = made["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    assert services["routeguard"]["environment"]["ROUTEGUARD_TRUSTED_PROXIES"] == subnet
    assert "noeviction" in services["valkey"]["command"]


def test_systemd() -> None:
    parsed = unit()
    assert set(parsed.sections()) == {"Unit", "Service", "Install"}
    if shutil.which("systemd-analyze") is None:
        return
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(FOLDER / "routeguard@.service")], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    complaints = [line for line in found.stderr.splitlines() if "routeguard@" in line]
    assert not [line for line in complaints if "Unknown" in line or "Failed to parse" in line], complaints


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile"])
def test_braces_are_closed(name: str) -> None:
    depth = 0
    for line in (FOLDER / name).read_text("utf-8").splitlines():
        code = line.partition("#")[0].strip()
        depth += code.count("{") - code.count("}")
        assert depth >= 0
        if name == "nginx.conf" and code:
            assert code[-1] in ";{}" or code.endswith('"";'), line
    assert depth == 0


def test_proxies_give_idle_connections_up_before_the_server_does() -> None:
    """The server does after 5 seconds; a proxy that waits longer sends requests into connections that are closing."""
    server = (ROOT / "src" / "routeguard" / "cli" / "server.py").read_text("utf-8")
    assert "timeout_keep_alive=5" in server
    assert "keepalive_timeout 4s" in (FOLDER / "nginx.conf").read_text("utf-8")
    assert re.search(r"\bkeepalive 4s", (FOLDER / "Caddyfile").read_text("utf-8"))
    assert "pool-purge-delay 4s" in (FOLDER / "haproxy.cfg").read_text("utf-8")
