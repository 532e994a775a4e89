"""`session_for` and `key_for`: values as the guard itself finds them, and no others."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest

from routeguard.testing import key_for, session_for


@dataclass(frozen=True)
class Person:
    id: object


AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def test_a_session_is_one_that_has_just_begun() -> None:
    before = datetime.now(UTC)
    session = session_for(Person("1"))
    assert before <= session.authenticated_at <= datetime.now(UTC) < session.expires_at
    assert session.created_at == session.authenticated_at == session.assurance.authenticated_at
    assert (session.principal_id, session.assurance.amr, session.assurance.aal) == ("1", ("pwd",), 1)
    assert session.id.startswith("ses_")
    assert session.id != session_for(Person("1")).id


def test_a_session_is_what_the_test_says() -> None:
    session = session_for(Person(UUID(int=1)), authenticated_at=AT, amr=("pwd", "otp"), aal=2, role="owner")
    assert session.principal_id == str(UUID(int=1))
    assert session.authenticated_at == session.created_at == session.assurance.authenticated_at == AT
    assert (session.assurance.amr, session.assurance.aal, session.role) == (("pwd", "otp"), 2, "owner")


def test_a_key_is_of_its_user() -> None:
    key = key_for(Person(7), "reports:read", privilege="protected", rate="60/minute")
    assert (key.owner_id, key.user_id, key.scopes, key.rate) == ("7", "7", ("reports:read",), "60/minute")
    assert key.has_privilege("restricted")
    assert key.principal_id.startswith("key_")


@pytest.mark.parametrize("user", [None, "ann", {}, Person(None), Person(""), Person(True)])
def test_a_user_without_an_id_is_none(user: object) -> None:
    for make in (session_for, key_for):
        with pytest.raises(TypeError, match="`id`"):
            make(user)


def test_what_no_session_or_key_has_is_an_error() -> None:
    with pytest.raises(TypeError, match="rolle"):
        session_for(Person("1"), rolle="admin")
    with pytest.raises(ValueError, match="zone"):
        session_for(Person("1"), authenticated_at=AT.replace(tzinfo=None))
    with pytest.raises(ValueError, match="scopes"):
        key_for(Person("1"), "reports read")
    with pytest.raises(ValueError, match="privilege"):
        key_for(Person("1"), privilege="root")  # type: ignore[arg-type]


def test_the_package_loads_no_fastapi() -> None:
    code = "import sys, routeguard.testing; sys.exit('fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
