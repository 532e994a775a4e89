"""Where an application is found, whatever its server, a mount or a proxy does with the prefix."""

from __future__ import annotations

import pytest

from routeguard.protection.guard.place import public_path, public_root, route_path


@pytest.mark.parametrize(
    ("entered", "root"),
    [
        ("", ""),
        ("/", ""),
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/a/b", "/a/b"),
        ("/caf\u00e9", "/caf%C3%A9"),
        ("/a b", ""),
        ("/a'b", "/a'b"),
        # HTTP-05, RED-01: from a mount with a parameter or a middleware that reads a field of the request.
        ("//evil.example", ""),
        ("/\\evil.example", ""),
        ("evil.example", ""),
        ("/a/../b", ""),
        ("/..", ""),
        ("/a//b", ""),
        ("https://evil.example", ""),
        ("/a\r\nb", ""),
        ("/%2F%2Fevil.example", ""),
        ("/a?b", "/a%3Fb"),
    ],
)
def test_a_root_is_a_plain_path_or_none(entered: str, root: str) -> None:
    assert public_root(entered) == root


@pytest.mark.parametrize(
    ("path", "entered", "local"),
    [
        ("/a", "", "/a"),
        ("/api/a", "/api", "/a"),
        ("/a", "/api", "/a"),
        ("/api", "/api", "/"),
        ("/api/", "/api", "/"),
        ("/apiary", "/api", "/apiary"),
        ("", "", ""),
        ("/account", "/acc", "/account"),
    ],
)
def test_the_path_that_routes_have(path: str, entered: str, local: str) -> None:
    assert route_path(path, entered) == local


@pytest.mark.parametrize(
    ("path", "raw", "entered", "root", "due"),
    [
        ("/a", b"/a", "", "", "/a"),
        ("/a b", b"/a%20b", "", "", "/a%20b"),
        ("/a b", None, "", "", "/a%20b"),
        ("/api/a b", b"/api/a%20b", "/api", "/api", "/api/a%20b"),
        ("/a b", b"/a%20b", "/api", "/api", "/api/a%20b"),
        ("/caf\u00e9/a", b"/caf%C3%A9/a%2Fb", "/caf\u00e9", "/caf%C3%A9", "/caf%C3%A9/a%2Fb"),
        # Spelt another way by the browser than by us: the decoded path counts.
        ("/api/a", b"/%61pi/a", "/api", "/api", "/api/a"),
        ("/api", b"/api", "/api", "/api", "/api/"),
        # The setting says more than the server knows.
        ("/x/a", b"/x/a", "/x", "/outer/x", "/outer/x/a"),
        ("/a", b"/a", "", "/api", "/api/a"),
    ],
)
def test_the_path_that_browsers_used(path: str, raw: bytes | None, entered: str, root: str, due: str) -> None:
    assert public_path(path, raw, entered=entered, root=root) == due
