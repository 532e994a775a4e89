"""What a statement can run into, in our words. No value of any statement is carried along."""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from routeguard.core.errors import Misconfigured, RouteguardError, Unavailable
from routeguard.foundation.db.refusals import refusal_of

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("routeguard.db")

# SQLSTATE, PostgreSQL appendix A.
_CONTENDED: Final = frozenset({"40001", "40P01"})
_AWAY: Final = (
    "08",
    "25006",
    "28",
    "3D",
    "53",
    "57P",
    "SQLITE_CANTOPEN",
    "SQLITE_CORRUPT",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_NOTADB",
    "SQLITE_READONLY",
)
"""Connections that fail, are refused, name no database, find no room, take no writes, or are ended by the operator;
files that fail."""
_INCOMPLETE: Final = {
    "42P01": "lacks a table of ours: run `routeguard migrate`",
    "3F000": "lacks the schema of our tables: run `routeguard migrate`",
    "42501": "does not let the user of database_url use a table of ours",
}
_UNIQUE: Final = "23505"
_REASON_LENGTH: Final = 120
_QUOTED: Final = re.compile(r""" ?(?:"[^"]*"|'[^']*')""")
_SQLITE_UNIQUE: Final = frozenset({"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"})


class ConstraintViolation(RouteguardError):
    """The database refused a row. `constraint` names the constraint, or the columns (SQLite)."""

    def __init__(self, constraint: str) -> None:
        self.constraint = constraint
        super().__init__(f"constraint {constraint}")


class UniqueViolation(ConstraintViolation):
    """A row with this key exists."""


class Outage:
    """Says in the log once that a database is away or refuses us, and once that it is back, and where it is.

    Never as whom we ask.
    """

    __slots__ = ("_said", "place")

    def __init__(self, place: str) -> None:
        self.place = place
        self._said: str | None = None

    def away(self, error: BaseException) -> Unavailable:
        """Return what to raise: the place and the driver's reason, for the log and the operator."""
        refusal = refusal_of(str(error))
        if refusal is not None:
            self._say("refused", logging.ERROR, f"the database at {self.place} {refusal}")
            return Misconfigured(f"the database at {self.place} {refusal}")
        reason = short_reason(error)
        self._say("away", logging.WARNING, f"the database at {self.place} is away: {reason}")
        return Unavailable(f"database at {self.place}: {reason}")

    def incomplete(self, error: BaseException) -> Misconfigured | None:
        """Return what to raise when our tables are not there, or not for us; None for any other wrong statement."""
        finding = _INCOMPLETE.get(getattr(error, "sqlstate", None) or "")
        if finding is None:
            return None
        self._say("incomplete", logging.ERROR, f"the database at {self.place} {finding}")
        return Misconfigured(f"the database at {self.place} {finding}")

    def _say(self, kind: str, level: int, text: str) -> None:
        if kind != self._said:
            self._said = kind
            logger.log(level, "%s", text)

    def back(self) -> None:
        """Take note of an answer."""
        if self._said is not None:
            self._said = None
            logger.warning("the database at %s is back", self.place)


def short_reason(error: BaseException) -> str:
    """Return a driver's words in short: one line, without anything it quotes (names of users; attack OBS-03)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # libpq says where first and why last, once for each address it tried.
    why = next((line.rpartition("failed: ")[2] for line in reversed(lines) if "failed: " in line), "")
    words = _QUOTED.sub("", why or (lines[0] if lines else "")).split()
    name = getattr(error, "sqlite_errorname", None)
    said = json.dumps(" ".join(words)[:_REASON_LENGTH])[1:-1] or type(error).__name__
    return f"{said} ({name})" if name else said


class Contended(Unavailable):
    """The database rolled a transaction back in favour of another; `Database.run` tries again (attack OPS-16)."""


@contextmanager
def faults(outage: Outage, *, migrating: bool = False) -> Iterator[None]:
    """Turn what drivers raise into our words: a fault is Unavailable (503), never an answer.

    A wrong statement (ProgrammingError, DataError) is a fault of ours and passes through: 500. Not so one that is right
    and whose table is missing, because of a migration that was not run yet, or of one that was; `migrating` says that
    this one is to mend it.
    """
    try:
        yield
    except IntegrityError as error:
        # Attack OBS-03: PostgreSQL's detail line quotes the row, so only names leave.
        raise _violation(error) from None
    except (ProgrammingError, DataError) as error:
        if not migrating and (missing := outage.incomplete(error.orig or error)) is not None:
            raise missing from None
        raise type(error)(error.statement, None, error.orig or error, hide_parameters=True) from None
    except DBAPIError as error:
        raise _unavailable(error, outage) from None
    except PoolTimeoutError:
        logger.warning("the database's connection pool is exhausted")
        raise Unavailable("database: pool exhausted") from None
    except (OSError, TimeoutError) as error:
        raise outage.away(error) from None


def _unavailable(error: DBAPIError, outage: Outage) -> Unavailable:
    return fault_of(error.orig or error, outage)


def fault_of(error: BaseException, outage: Outage) -> Unavailable:
    """Return what a driver's fault means: the database is away, or it answered and could not do this one thing."""
    state: str = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None) or ""
    if state in _CONTENDED:
        return Contended(f"database: contended {state}")
    if state and not state.startswith(_AWAY):
        logger.warning("the database at %s failed: %s %s", outage.place, type(error).__name__, state)
        return Unavailable(f"database at {outage.place}: {type(error).__name__} {state}")
    return outage.away(error)


def _violation(error: IntegrityError) -> ConstraintViolation:
    cause: Any = error.orig
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        name = str(cause.diag.constraint_name or cause.diag.column_name or "")
        return UniqueViolation(name) if state == _UNIQUE else ConstraintViolation(name)
    # "UNIQUE constraint failed: users.email_key": names only.
    name = str(cause).partition(": ")[2]
    unique = getattr(cause, "sqlite_errorname", "") in _SQLITE_UNIQUE
    return UniqueViolation(name) if unique else ConstraintViolation(name)
