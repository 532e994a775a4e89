"""The secret of a developer's machine: made on first use and kept beside the application."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from routeguard.core.errors import ConfigError
from routeguard.core.secret import MINIMUM_SECRET_BYTES, Secret, new_token

_MOST_SECRET_BYTES: Final = 4096


def keep_development_secret(directory: Path) -> Secret:
    """Return the secret kept in `.routeguard/secret`, made on first use and readable by its owner only.

    Raises ConfigError for a file that anybody else could know or have put there.
    """
    path = directory / ".routeguard" / "secret"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.is_symlink() and not path.exists():
            _make_secret(path)
        return _kept_secret(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made or read: {error.strerror or error}") from None


def kept_secret_findings(directory: Path) -> list[str]:
    """Return what is wrong with the secret kept in `.routeguard/secret`; none is made here, and none need be there."""
    path = directory / ".routeguard" / "secret"
    if not path.is_symlink() and not path.exists():
        return []
    try:
        _kept_secret(path)
    except ConfigError as error:
        return list(error.findings)
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror or error}"]
    return []


def _make_secret(path: Path) -> None:
    """Write a new secret beside `path`, then link it there: whole or not at all, and the first of several stays."""
    handle, temporary = tempfile.mkstemp(prefix="secret-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(new_token())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()


def _kept_secret(path: Path) -> Secret:
    """Read a secret, if it is one: with an empty or a known one anybody makes cookies (attacks JWT-30, OPS-11)."""
    advice = f"delete {path} to have a new one made, or set ROUTEGUARD_SECRET"
    if path.is_symlink():
        raise ConfigError(f"{path} is a link, perhaps to what others know: {advice}")
    # Asked of the very file that is read, which no other process can exchange in between.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read(_MOST_SECRET_BYTES).strip()
    if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid not in {0, os.geteuid()}):
        raise ConfigError(f"{path} can be read or written by others: chmod 600 it if none did, or {advice}")
    if len(content) < MINIMUM_SECRET_BYTES:
        raise ConfigError(f"{path} holds fewer than {MINIMUM_SECRET_BYTES} bytes: {advice}")
    return Secret(content)
