"""Runs revisions with Alembic's operations, in the transaction that `db.migrate` opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from routeguard.core.errors import ConfigError
from routeguard.foundation.db.branches import COMMON, Branch, missing
from routeguard.foundation.db.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from alembic.script import Script

    from routeguard.foundation.db.names import Names

_LONGEST: Final = 32
"""Characters of a revision's id in the table that Alembic made so far."""


def upgrade(connection: sa.Connection, names: Names, branches: Sequence[Branch], current: Collection[str]) -> None:
    """Apply what the heads `current` lack. Raises ConfigError for revisions that do not make lines.

    Alembic orders and runs them; which are applied is written here, one row for each branch. Alembic itself would
    drop the row of a revision that another one depends on, and with the other's feature gone nothing would tell how
    far the first branch is.
    """
    version = _version_table(names)
    version.create(connection, checkfirst=True)
    wanted = set(missing(branches, current))
    context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
    with Operations.context(context):
        for script in ordered(branches):
            if script.revision not in wanted:
                continue
            script.module.upgrade()
            connection.execute(sa.delete(version).where(version.c.version_num == script.down_revision))
            connection.execute(sa.insert(version).values(version_num=script.revision))


def ordered(branches: Sequence[Branch]) -> list[Script]:
    """Return all revisions, each after what it follows and depends on. Raises ConfigError."""
    places = [str(branch.folder) for branch in branches]
    try:
        scripts = list(ScriptDirectory(str(COMMON.folder.parent), version_locations=places).walk_revisions())[::-1]
    except KeyError as error:
        wanted = str(error.args[0])
        name = wanted.rpartition("_")[0]
        hint = f": is the feature {name!r} in features?" if name else ""
        raise ConfigError(f"a migration depends on {wanted}, which is not there{hint}") from None
    except (CommandError, RevisionError) as error:
        raise ConfigError(f"the migrations cannot be put in an order: {error}") from None
    findings = [finding for branch in branches for finding in _misnumbered(branch, scripts)]
    if findings:
        raise ConfigError(findings)
    return scripts


def _misnumbered(branch: Branch, scripts: Sequence[Script]) -> list[str]:
    """Return which files do not say what their names do."""
    own = {script.revision: script for script in scripts}
    findings: list[str] = []
    before: str | None = None
    for revision in branch.revisions():
        script = own.get(revision)
        if script is None or script.down_revision != before:
            findings.append(f"{branch.folder}: revision {revision!r} with down_revision {before!r} is expected")
        elif before is None and branch.name and script.branch_labels != {branch.name}:
            findings.append(f"{branch.folder}: {revision} must have branch_labels = ({branch.name!r},)")
        before = revision
    return findings


def _version_table(names: Names) -> sa.Table:
    """Return the table as Alembic makes it."""
    return sa.Table(
        names.version,
        sa.MetaData(),
        sa.Column("version_num", sa.String(_LONGEST), nullable=False),
        sa.PrimaryKeyConstraint("version_num", name=f"{names.version}_pkc"),
        schema=names.schema or None,
    )
