"""The first table of devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "devices_0001"
down_revision = None
branch_labels = ("devices",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "routeguard_devices",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routeguard_devices"),
    )


def downgrade() -> None:
    op.drop_table("routeguard_devices")
