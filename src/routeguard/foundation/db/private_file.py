"""The file behind `sqlite://`: private to this process, in the temporary folder only while it is used."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Self


class PrivateFile:
    """One private database. What it holds is kept in memory between the last close and the next start."""

    def __init__(self) -> None:
        handle, self.path = tempfile.mkstemp(prefix="routeguard-", suffix=".db")
        os.close(handle)
        self._users: set[int] = set()
        self._content = b""
        _FILES[self.path] = self
        weakref.finalize(self, _remove, self.path)

    @classmethod
    def at(cls, path: str) -> Self | None:
        """Return the private database that a path is of, or None."""
        found = _FILES.get(path)
        return found if isinstance(found, cls) else None

    def enter(self, user: object) -> None:
        """Keep the file until `user` has left."""
        self._users.add(id(user))

    def leave(self, user: object) -> None:
        """Remove the file unless others use it."""
        self._users.discard(id(user))
        if self._users or not Path(self.path).exists():
            return
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            self._content = connection.serialize()
        _remove(self.path)

    def restore(self, handle: int) -> None:
        """Write into the new, empty file what the old one held."""
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(self._content)
        self._content = b""


_FILES: Final[weakref.WeakValueDictionary[str, PrivateFile]] = weakref.WeakValueDictionary()


def _remove(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)
