"""Keeps the application's Alembic away from our tables: two functions to hand to its `env.py`.

::

    from routeguard import include_name, include_object

    context.configure(..., include_name=include_name, include_object=include_object)

Both follow `database.table_prefix` and `database.schema` as the environment and ./pyproject.toml set them. An
application that makes its `Settings` itself takes ``settings.database.names.include_name`` and ``.include_object``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from routeguard.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from routeguard.foundation.db.names import Names


def include_name(name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
    """Return whether Alembic should look at what it found in the database: at nothing that is Routeguard's.

    Without it `alembic revision --autogenerate` and `alembic check` propose to drop our tables. An `include_name` of
    one's own is asked as well: ``include_name(*found) and mine(*found)``.
    """
    return _names().include_name(name, type_, parent_names)


def include_object(
    object_: Any,
    name: str | None,
    type_: str,
    reflected: bool,  # noqa: FBT001 - Alembic's shape
    compare_to: Any,
) -> bool:
    """Return whether Alembic should compare something: nothing that is Routeguard's, found or declared.

    Needed where the application's metadata declares a table of ours for a foreign key to refer to.
    """
    return _names().include_object(object_, name, type_, reflected, compare_to)


@cache
def _names() -> Names:
    # Whatever else is wrong with the settings is not Alembic's business.
    settings, _ = Settings.read()
    return settings.database.names
