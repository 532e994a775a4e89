"""What a database URL may be, told without opening anything."""

from __future__ import annotations

from routeguard.core.ports import PORT_RANGE, is_port


def url_finding(url: str) -> str | None:
    """Return what is wrong with a `database_url`, or None. Nothing of the URL is repeated: it may hold a password."""
    if url.startswith("sqlite://"):
        # Whether the folder is there is for the start: it may be mounted later.
        return "database_url: sqlite:/// is followed by the path of a file, without parameters" if "?" in url else None
    if url.startswith("postgresql://"):
        return _postgresql_finding(url)
    return "database_url must begin with sqlite:// or postgresql://, without a driver in the name"


def sqlite_path(url: str) -> str:
    """Return the file of a SQLite URL, as it is written."""
    return url.removeprefix("sqlite://").removeprefix("/")


def is_temporary(url: str) -> bool:
    """Whether nothing of a database is left at the end of the process."""
    return url.startswith("sqlite://") and sqlite_path(url) in {"", ":memory:"}


def _postgresql_finding(url: str) -> str | None:
    try:
        import psycopg  # noqa: PLC0415 - an extra
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - the same
    except ImportError:
        return "database_url: PostgreSQL needs the extra routeguard[postgres]"
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "database_url cannot be read: in a user or password, @ / : % are written %40 %2F %3A %25"
    # One for each host; an empty one is the default.
    ports = [port for port in str(given.get("port", "")).split(",") if port]
    return None if all(map(is_port, ports)) else f"database_url: {PORT_RANGE}"
