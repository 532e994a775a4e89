"""What ends a one-time token, stored with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "users_0001"
down_revision = None
branch_labels = ("users",)
depends_on = "0004"


def upgrade() -> None:
    # Every token there is ends with a change of address, as before; what else ends it, its purpose says.
    column = sa.Column("ends_with", sa.Integer(), nullable=False, server_default=sa.text("2"))
    op.add_column("routeguard_one_time_tokens", column)


def downgrade() -> None:
    op.drop_column("routeguard_one_time_tokens", "ends_with")
