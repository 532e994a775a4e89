"""The migrations of each feature: a folder of numbered revisions, one line per feature, with one head.

A revision of a feature is called after it (`device_trust_0002`), so that a database says whose tables it holds, also to
a process that does not have that feature.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.errors import ConfigError
from routeguard.foundation.db.names import DEFAULT_PREFIX, TABLES
from routeguard.foundation.db.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from routeguard.core.feature import Feature

_PACKAGE: Final = Path(__file__).parents[2]
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,26}", re.ASCII)
"""With `_0001` within the 32 characters that Alembic's version table has."""
_FILE: Final = re.compile(r"([0-9]{4})_[a-z0-9_]+\.py", re.ASCII)
_TABLE: Final = re.compile(rf"{DEFAULT_PREFIX}[a-z][a-z0-9_]{{0,29}}", re.ASCII)
"""With the longest prefix and the name of an index within PostgreSQL's 63 bytes."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A line of revisions: those in `folder`, in the order of their numbers. `name` is the feature's."""

    name: str
    folder: Path
    tables: frozenset[str] = frozenset()
    """Names of tables that are not the package's own, without the prefix."""

    def revisions(self) -> list[str]:
        """Return the ids of all revisions, oldest first, as the names of the files say."""
        begin = f"{self.name}_" if self.name else ""
        found = (_FILE.fullmatch(path.name) for path in self.folder.glob("[0-9]*.py"))
        return sorted(begin + match[1] for match in found if match)


COMMON: Final = Branch("", Path(__file__).parent / "migrations" / "versions")
"""The tables from before features had branches. It is closed: what a built-in feature changes is in its own branch."""


def built_in() -> list[Branch]:
    """Return the common branch and those of the package's features, whichever of them run.

    They are found by their folders, `<feature>/migrations`: commands over a database load no features.
    """
    folders = sorted(_PACKAGE.rglob("migrations/0001_*.py"))
    return [COMMON, *(Branch(path.parent.parent.name, path.parent) for path in folders)]


def branches_of(features: Iterable[Feature]) -> list[Branch]:
    """Return the branches of features that are not the package's own. Raises ConfigError with all findings."""
    findings: list[str] = []
    found: dict[str, Branch] = {}
    known = {branch.name: branch.folder for branch in built_in()}
    for feature in features:
        tables, wrong = _tables(feature)
        findings += wrong
        folder = feature.migrations
        if folder is None:
            if tables:
                findings.append(f"the feature {feature.name!r} has tables and no migrations=, which would create them")
            continue
        if known.get(feature.name) == folder:
            continue
        branch = Branch(feature.name, folder, frozenset(tables))
        findings += _unfit(branch, {*known, *found})
        found[branch.name] = branch
    for base in {base for branch in found.values() for base in branch.tables}:
        owners = [branch.name for branch in found.values() if base in branch.tables]
        if len(owners) > 1:
            findings.append(f"the table {DEFAULT_PREFIX}{base} is of several features: {', '.join(owners)}")
    if findings:
        raise ConfigError(findings)
    return list(found.values())


def _tables(feature: Feature) -> tuple[list[str], list[str]]:
    """Return the names, without the prefix, of the tables that are not the package's own, and what is wrong."""
    tables: list[str] = []
    findings: list[str] = []
    for table in feature.tables:
        name: str = table.name
        base = name.removeprefix(DEFAULT_PREFIX)
        if base in TABLES and metadata.tables.get(name) is table:
            continue
        if not _TABLE.fullmatch(name) or base in {*TABLES, "version", "migration_lock"}:
            findings.append(
                f"the table {name!r} of the feature {feature.name!r} must be called {DEFAULT_PREFIX} and at most 30 "
                "letters (a to z), digits and _, like no other table"
            )
        elif metadata.tables.get(name) is not table:
            findings.append(
                f"the table {name!r} of the feature {feature.name!r} must be in routeguard.records.metadata"
            )
        else:
            tables.append(base)
    return tables, findings


def _unfit(branch: Branch, taken: Collection[str]) -> list[str]:
    """Return why a branch cannot be applied."""
    if not _NAME.fullmatch(branch.name):
        return [f"the feature {branch.name!r} has migrations: its name must be at most 27 of a to z, 0 to 9 and _"]
    if branch.name in taken:
        return [f"two features with migrations are called {branch.name!r}"]
    wanted = [f"{branch.name}_{number:04}" for number in range(1, len(branch.revisions()) + 1)]
    if not wanted:
        return [
            f"the migrations of the feature {branch.name!r} are not in {branch.folder}: no file is called 0001_*.py"
        ]
    if branch.revisions() != wanted:
        return [f"the migrations of the feature {branch.name!r} are not numbered one by one from 0001"]
    return []


def heads(branches: Iterable[Branch]) -> frozenset[str]:
    """Return the revisions a database must have, one for each branch."""
    return frozenset(branch.revisions()[-1] for branch in branches)


def missing(branches: Iterable[Branch], current: Collection[str]) -> list[str]:
    """Return the revisions not yet applied to a database with the heads `current`, branch by branch, oldest first."""
    found: list[str] = []
    for branch in branches:
        revisions = branch.revisions()
        applied = max((revisions.index(one) + 1 for one in revisions if one in current), default=0)
        found += revisions[applied:]
    return found


def unknown(branches: Iterable[Branch], current: Collection[str], *, others: Collection[str]) -> list[str]:
    """Return findings about heads of a database that no branch has, but for those of the features `others`."""
    known: dict[str, Any] = {branch.name: branch.revisions() for branch in branches}
    findings: list[str] = []
    for revision in sorted(current):
        name = revision.rpartition("_")[0]
        if revision in known.get(name, ()) or (name in others and name not in known):
            continue
        if name == "":
            findings.append(f"the database has the revision {revision}, which a newer version of Routeguard made")
        elif name in known:
            findings.append(f"the database has {revision}, which a newer version of the feature {name!r} made")
        else:
            findings.append(
                f"the database has tables of the feature {name!r} ({revision}), which is not in features: add it "
                f"(`routeguard migrate --app MODULE:GUARD`), or name it in database.other_features"
            )
    return findings
