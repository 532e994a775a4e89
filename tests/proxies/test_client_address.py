"""Who the client is behind the proxies we ship files for, whatever it writes into which header (RL-01, RL-02)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.backends import free_port
from tests.proxies.conftest import (
    CLIENT,
    HOW_TO,
    SPOOFED,
    Answer,
    Proxy,
    adapted,
    haproxy,
    nginx,
    served,
    shipped_nginx,
)

SERVERS = {
    # What `uvicorn main:app` does, and what `routeguard serve` does.
    "uvicorn": {"http": "httptools"},
    "like-serve": {"http": "h11", "proxy_headers": False},
}


def _how_to(language: str, containing: str) -> str:
    """Return the one block of the how-to that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", HOW_TO, re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if containing in block]
    return str(found)


def _with_forwarded(site: str) -> str:
    """Return the shipped nginx.conf changed as the how-to says for `Forwarded`."""
    above, _, below = _how_to("nginx", "map $remote_addr").partition("# In location")
    lines = below.partition("\n")[2]
    site = re.sub(r"^ *proxy_set_header (?:X-Forwarded-For|Forwarded) .*\n", "", site, flags=re.MULTILINE)
    return above + adapted(site, ("proxy_set_header Host $host;", f"proxy_set_header Host $host;\n{lines}"))


@pytest.fixture(
    scope="module",
    params=[
        *[f"{proxy} {server}" for proxy in ("nginx", "haproxy") for server in SERVERS],
        "nginx-forwarded uvicorn",
    ],
)
def proxy(request: pytest.FixtureRequest, pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    kind, _, server = str(request.param).partition(" ")
    folder = tmp_path_factory.mktemp("proxy")
    header = "Forwarded" if kind == "nginx-forwarded" else "X-Forwarded-For"
    with ExitStack() as stack:
        backend = stack.enter_context(served(header, **SERVERS[server]))
        if kind == "haproxy":
            yield stack.enter_context(haproxy(folder, backend, pem))
            return
        port = free_port()
        site = shipped_nginx(backend, port, pem)
        site = _with_forwarded(site) if kind == "nginx-forwarded" else site
        yield stack.enter_context(nginx(folder, site, port))


def spellings(name: str, value: str) -> list[list[str]]:
    """Return lines in which a client may state one header."""
    dashed = name.replace("-", "_")
    return [
        [f"{name}: {value}"],
        [f"{name.lower()}:{value}"],
        [f"{name.upper()}:\t{value} \t"],
        [f"{name}: {value}", f"{name}: {value}"],
        [f"{name}: {value}, {value}"],
        [f"{name}: {value},"],
        [f"{name}: ,{value}"],
        [f"{name}:", f"{name}: {value}"],
        [f"{name}: {value}", f"{name}:"],
        [f"{name} : {value}"],
        [f"{name}\t: {value}"],
        [f" {name}: {value}"],
        [f"X-Other: a\r\n {name}: {value}"],
        [f"X-Other: a\n{name}: {value}"],
        [f"X-Other: a\r{name}: {value}"],
        [f"{name}\x00: {value}"],
        [f"{dashed}: {value}"],
        [f"{name}: {value}", f"{dashed}: {value}"],
        [f"{name}: {value}", f"Connection: close, {name}"],
        [f"Connection: close, {name}"],
        [f"{name}: {value}", "Connection: keep-alive", "Connection: close"],
    ]


STATED = {
    "X-Forwarded-For": (
        SPOOFED,
        f"{SPOOFED}, 127.0.0.1",
        f"127.0.0.1, {SPOOFED}",
        f"{SPOOFED}:80",
        f"[::ffff:{SPOOFED}]",
        "unknown",
        f"{SPOOFED}, 127.0.0.1, 127.0.0.1",
        "127.0.0.1",
        f'"{SPOOFED}"',
        f'"a,{SPOOFED}"',
        "\xff",
        ",",
        "a" * 4000,
    ),
    "Forwarded": (
        f"for={SPOOFED}",
        f"for={SPOOFED};proto=https, for=127.0.0.1",
        f"for=127.0.0.1, for={SPOOFED}",
        f'for="{SPOOFED}:80"',
        f'for={SPOOFED};host="',
        f'host="a,for={SPOOFED}"',
        f'for="[::ffff:{SPOOFED}]"',
        f"FOR={SPOOFED}",
        f"by={SPOOFED};for={SPOOFED}",
        "for=unknown",
        '"',
        "\\",
        f'for={SPOOFED}, "',
        "",
    ),
    "X-Real-IP": (SPOOFED,),
    "X-Client-IP": (SPOOFED,),
    "True-Client-IP": (SPOOFED,),
    "CF-Connecting-IP": (SPOOFED,),
    "X-Forwarded": (f"for={SPOOFED}",),
    "Forwarded-For": (SPOOFED,),
}


def refused_or_itself(answer: Answer) -> bool:
    """Whether the proxy or the server refused to read it, or the client kept its own address."""
    return answer.address == CLIENT if answer.status == 200 else answer.status in {0, 400, 403, 431}


def test_the_client_has_its_own_address(proxy: Proxy) -> None:
    assert proxy.ask() == Answer(200, CLIENT, proxy.ask().text)
    assert proxy.ask(path="/allowed").status == 403
    assert proxy.ask(path="/denied").status == 403
    assert proxy.ask(path="/readyz").status == 404


@pytest.mark.parametrize("name", STATED)
def test_no_header_names_another(proxy: Proxy, name: str) -> None:
    """RL-01: several values, several lines, odd spellings, and every header that proxies are known to write."""
    for value in STATED[name]:
        first = value == STATED[name][0] and len(STATED[name]) > 1
        for lines in spellings(name, value) if first else ([f"{name}: {value}"],):
            answer = proxy.ask(*lines)
            assert refused_or_itself(answer), (lines, answer)


def test_both_headers_at_once(proxy: Proxy) -> None:
    forged = [f"X-Forwarded-For: {SPOOFED}", f"Forwarded: for={SPOOFED}", f"X-Real-IP: {SPOOFED}"]
    for lines in (
        forged,
        forged[::-1],
        forged * 3,
        [*forged, "Forwarded: for=127.0.0.1", "X-Forwarded-For: 127.0.0.1"],
    ):
        assert proxy.ask(*lines).address == CLIENT
        assert proxy.ask(*lines, path="/allowed").status == 403


def test_a_trailer_names_nobody(proxy: Proxy) -> None:
    """HTTP-07: HAProxy passes trailers on, and uvicorn's httptools takes them for header fields."""
    for trailer in (f"X-Forwarded-For: {SPOOFED}", f"Forwarded: for={SPOOFED}", f"x-forwarded-for: {SPOOFED}"):
        body = f"1\r\na\r\n0\r\n{trailer}\r\n\r\n".encode()
        chunked = ("Transfer-Encoding: chunked", "Trailer: X-Forwarded-For, Forwarded")
        answer = proxy.ask(*chunked, method="POST", body=body)
        assert answer.status == 200
        assert answer.address in {CLIENT, None}
        assert proxy.ask(*chunked, method="POST", body=body, path="/allowed").status == 403
        assert proxy.ask(*chunked, method="POST", body=body, path="/denied").status == 403
    assert proxy.ask("Transfer-Encoding: chunked", method="POST", body=b"1\r\na\r\n0\r\n\r\n").address == CLIENT
