"""Every name has a prefix (`routeguard_` by default).

Tables of before are renamed ahead of all revisions (`routeguard.foundation.db.renaming`), so that those before this one
find them under their names of now. This revision says so: a version of the package that looks for the former names
does not start.
"""

from __future__ import annotations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing is left to do."""


def downgrade() -> None:
    """Nothing was done."""
