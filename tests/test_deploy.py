"""What is in deploy/ agrees with what the package has: settings, options, routes, and the seconds it takes to stop."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from routeguard.cli.graceful import _ALL, _SETTLE
from routeguard.cli.main import app
from routeguard.core.rate import parse_duration
from routeguard.foundation.web.health import health_routes
from routeguard.settings import Settings

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
    deployment, service, ingress, budget, scaler = yaml_of("kubernetes.yaml")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
        assert selector.items() <= labels.items()
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": service["metadata"]["name"], "port": {"name": service["spec"]["ports"][0]["name"]}}
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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert main["image"].rpartition(":")[2] == project["version"]


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
    password = made["secrets"]["postgres"]["file"].removeprefix("./")
    assert f"deploy/{password}" in DOCS
    assert "noeviction" in services["valkey"]["command"]


def test_systemd() -> None:
    parsed = unit()
    assert set(parsed.sections()) == {"Unit", "Service", "Install"}
    if shutil.which("systemd-analyze") is None:
        return
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(FOLDER / "routeguard@.service")],
        capture_output=True,
        text=True,
        check=False,
    )
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


@pytest.mark.parametrize("name", ["nginx.conf", "haproxy.cfg"])
def test_proxies_find_the_processes_of_the_unit(name: str) -> None:
    """`systemctl enable --now routeguard@8001 routeguard@8002`, on the address that the unit listens on."""
    text = (FOLDER / "routeguard@.service").read_text("utf-8")
    host = re.search(r"--host (\S+)", text)
    assert host is not None
    wanted = {f"{host[1]}:{port}" for port in re.findall(r"routeguard@(\d+)", text)}
    proxy = (FOLDER / name).read_text("utf-8")
    assert set(re.findall(r"^ *server (?:\S+ )?([\d.]+:\d+)", proxy, re.MULTILINE)) == wanted


@pytest.mark.parametrize("name", ["nginx.conf", "haproxy.cfg", "Caddyfile"])
def test_proxies_keep_readiness_from_the_public(name: str) -> None:
    text = (FOLDER / name).read_text("utf-8")
    assert re.search(
        r"respond /readyz 404|location = /readyz \{ return 404; \}|deny_status 404 if \{ path /readyz \}", text
    )


def test_every_way_says_which_proxy_to_believe() -> None:
    """Else every client has the proxy's address, and shares the limits of all others."""
    for name in ("routeguard.env.example", "compose.yaml", "kubernetes.yaml"):
        text = (FOLDER / name).read_text("utf-8")
        assert re.search(r"ROUTEGUARD_TRUSTED_PROXIES(=|: |\n +value: )\S", text), name
        assert re.search(r"ROUTEGUARD_TRUSTED_PROXY_HEADER(=|: |\n +value: )X-Forwarded-For\b", text), name


@pytest.mark.parametrize("name", ["nginx.conf", "haproxy.cfg", "Caddyfile"])
def test_proxies_overwrite_one_header_and_drop_the_others(name: str) -> None:
    """RL-01. What nginx and HAProxy then do is tried in tests/proxies."""
    text = (FOLDER / name).read_text("utf-8")
    assert re.search(
        r"set_header X-Forwarded-For \$remote_addr;|set-header X-Forwarded-For %\[src\]|"
        r"header_up X-Forwarded-For \{remote_host\}",
        text,
    )
    for dropped in ("Forwarded", "X-Real-IP"):
        assert re.search(rf'set_header {dropped} "";|del-header {dropped}\n|header_up -{dropped}\n', text), dropped


def test_the_example_is_refused_until_it_is_filled_in() -> None:
    """OPS-11"""
    lines = (FOLDER / "routeguard.env.example").read_text("utf-8").splitlines()
    environ = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings, _ = Settings.read(environ=environ, directory=Path("/nonexistent"))
    found = " ".join(settings.findings())
    assert "database_url holds" in found
    assert "mail.url holds" in found
