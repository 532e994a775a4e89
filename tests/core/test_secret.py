from __future__ import annotations

import ast
from pathlib import Path

import pytest

import routeguard
from routeguard.core.secret import Secret, digest, equal, new_token

SOURCE = Path(routeguard.__file__).parent
# Both sides are values of our own, and no caller learns the time: a client's token, the name of a lease.
OWN_VALUES = {"protection/traffic/deduplicate.py"}
SECRET_NAMES = {"token", "secret", "signature", "digest", "mac", "csrf_token"}


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("a", "a", True),
        ("a", b"a", True),
        ("é", "é".encode(), True),
        ("\udcff", "\udcff", True),
        ("", "", True),
        ("a", "b", False),
        ("a", "ab", False),
        ("a", "", False),
    ],
)
def test_equal(left: str | bytes, right: str | bytes, same: bool) -> None:
    assert equal(left, right) is same
    assert equal(right, left) is same


def test_no_secret_is_compared_by_its_first_difference() -> None:
    """WH-10: `==` returns at the first byte that differs, so its time says how far a guess was right."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if str(path.relative_to(SOURCE)) in OWN_VALUES or path.parent.name == "client":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
                continue
            sides = [node.left, node.comparators[0]]
            named = {side.id if isinstance(side, ast.Name) else getattr(side, "attr", "") for side in sides}
            if named & SECRET_NAMES and not any(isinstance(side, ast.Constant) for side in sides):
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("correct horse battery staple")
    assert "horse" not in f"{secret} {secret!r}"
    assert secret.derive("one purpose") != secret.derive("another")


def test_tokens_differ_and_only_their_digest_is_stored() -> None:
    token = new_token()
    assert token != new_token()
    assert len(digest(token)) == 32
    assert digest(token) == digest(token.encode())
