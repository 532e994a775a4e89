"""Puts another prefix than the default one into every statement of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from routeguard.foundation.db.names import DEFAULT_PREFIX, VERBATIM

if TYPE_CHECKING:
    import sqlalchemy as sa

    from routeguard.foundation.db.names import Names


def follow(engine: sa.Engine, names: Names) -> None:
    """Make the statements of an engine name our tables as `names` does. Costs nothing with the default prefix."""
    if names.prefix == DEFAULT_PREFIX:
        return

    def rewrite(connection: sa.Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        if connection.get_execution_options().get(VERBATIM):
            return statement, parameters
        return names.rewrite(statement), parameters

    event.listen(engine, "before_cursor_execute", rewrite, retval=True)
