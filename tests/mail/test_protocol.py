"""What a message may be."""

from __future__ import annotations

import pytest

from routeguard.core.errors import ProblemError
from routeguard.foundation.mail.protocol import Message


@pytest.mark.parametrize("field", ["to", "subject", "name"])
@pytest.mark.parametrize("bad", ["\r\n", "\n", "\r", "\0", "\x0b", "\x85", "\u2028"])
def test_a_line_end_in_a_header_is_refused(field: str, bad: str):
    """ML-12: `Bcc:` behind a line end in a name, an address or a subject."""
    values = {"to": "ada@example.com", "subject": "Hello", "name": "Ada"}
    values[field] += f"{bad}Bcc: eve@example.com"
    with pytest.raises(ProblemError) as caught:
        Message(text="x", **values)
    assert caught.value.problem.status == 422
    assert {error["pointer"] for error in caught.value.problem.members["errors"]} == {f"/{field}"}
    assert "eve" not in str(caught.value.problem.body())


@pytest.mark.parametrize(
    "address", ["", "ada", "ada@", "@example.com", "ada@example.com, eve@example.com", "a b@example.com", "<a@b.c>"]
)
def test_what_is_not_one_address_is_refused(address: str):
    with pytest.raises(ProblemError) as caught:
        Message(to=address, subject="Hello", text="x")
    assert caught.value.problem.status == 422


def test_names_of_people_are_accepted_as_they_are_written():
    for name in ("Žofie Kovářová", "محمد", "👩\u200d💻 Ada", 'Ada "the first" Lovelace', "<b>Ada</b>"):
        assert Message(to="ada@example.com", name=name, subject="Hello", text="x").name == name
