"""Redirect targets: the attacks of surface RED, and what must still work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.redirect import safe_redirect

ATTACKS = {
    "RED-02": ["/\\evil.example", "\\/evil.example", "\\\\evil.example", "/%5Cevil.example", "/%5cevil", "//evil"],
    "RED-03": ["https:evil", "https:/evil", "http:///evil", "https:\\\\\\evil", "https://evil", "///evil"],
    "RED-04": ["https://app.example@evil", "https://evil#@app.example", "https://a@b@evil", "//app.example@evil"],
    "RED-06": [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "blob:x",
        "\x08javascript:x",
    ],
    "RED-07": [
        "/a\r\nSet-Cookie: x=1",
        "/\t/evil",
        "/a\nb",
        "/a\x00b",
        "  /a",
        " //evil",
        "/a?b=\r\nc",
        "/a?%0d%0ab",
        "/ a",
    ],
    "RED-08": ["%2F%2Fevil", "/%2F%2Fevil", "/%255Cevil", "/x/%2F%2Fevil", "/x/%252F%252Fevil", "/x/%25252525252Fy"],
    "RED-10": ["malicious.com?.example.com", "https://malicious.com?.example.com"],
    "RED-12": ["/a/..;/b", "/a/../b", "/a/%2e%2e/b", "/a/%2e%2e%3b/b", "/a/.;x/b", "/./b", "/.."],
    "Unicode slashes": ["/\uff0fevil", "\uff0f\uff0fevil", "/\uff3cevil", "/%EF%BC%8Fevil", "/a/\uff0e\uff0e/b"],
    "half a character": ["/\ud800", "/a?next=\udcff", "/a#\udfff"],
    "white space": ["/a b", "/a%20b#c", "/a b#c", "/a#b%0Ac", "/a#b\tc", "/a#b%00", "/a#\u00a0", "/a?b#c\u2028d"],
    # 2 KB become 24 KB in a Location.
    "long when encoded": [
        "/" + "\u00e9" * 342,
        "/" + "\U0001f600" * 171,
        "/?" + "\u20ac" * 2000,
        "/#" + " " * 683,
        "/" + '"' * 2047,
    ],
    "not a path": ["", "evil", "?a", "#a", "/" + "a" * 2048],
}
CASES = [
    pytest.param(target, id=f"{name}-{n}") for name, targets in ATTACKS.items() for n, target in enumerate(targets)
]


@pytest.mark.parametrize("target", CASES)
def test_an_attack_becomes_the_default(target: str) -> None:
    assert safe_redirect(target, "/default") == "/default"


@pytest.mark.parametrize(
    ("target", "result"),
    [
        ("/", "/"),
        ("/account", "/account"),
        ("/a/b?c=d&e=f#g", "/a/b?c=d&e=f#g"),
        ("/search?url=https%3A%2F%2Fx.example", "/search?url=https%3A%2F%2Fx.example"),
        ("/caf\u00e9?q=two%20words", "/caf%C3%A9?q=two%20words"),
        ("/a..b/c.", "/a..b/c."),
        ("/docs#two%20words", "/docs#two%20words"),
        ("/docs#two words", "/docs#two%20words"),
        ("/docs?q=a b#c d?e f", "/docs?q=a%20b#c%20d?e%20f"),
        ("/" + "a" * 2047, "/" + "a" * 2047),
        ("/" + "\u00e9" * 341, "/" + "%C3%A9" * 341),
    ],
)
def test_a_path_of_ours_is_kept(target: str, result: str) -> None:
    assert safe_redirect(target, "/default") == result


def test_nothing_is_the_default() -> None:
    assert safe_redirect(None, "/default") == "/default"
    assert safe_redirect(["/a"], "/default") == "/default"  # type: ignore[arg-type]


@given(st.text(alphabet="/\\.:;@?#%25cfF \t\r\n\0evil\uff0f\u2028", max_size=24))
def test_the_answer_is_always_one_line_on_this_origin(target: str) -> None:
    result = safe_redirect(target, "/default")
    assert result.isascii()
    assert result.isprintable()
    assert result.startswith("/")
    assert not result.startswith(("//", "/\\"))
