"""Signing keys, refresh families, API keys and registered clients."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "routeguard_signing_keys",
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("algorithm", sa.String(10), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("public", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("signs_from", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("generation", name="pk_routeguard_signing_keys"),
        sa.UniqueConstraint("kid", name="uq_routeguard_signing_keys_kid"),
    )
    _refresh_families()
    _api_keys()
    op.create_table(
        "routeguard_clients",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("public_key", sa.LargeBinary(32), nullable=False),
        sa.Column("previous_public_key", sa.LargeBinary(32), nullable=True),
        sa.Column("previous_until", sa.Float(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_routeguard_clients"),
    )


def _refresh_families() -> None:
    op.create_table(
        "routeguard_refresh_families",
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("session_id", sa.String(40), nullable=False),
        sa.Column("client_id", sa.String(40), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("current_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("binding", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("rotated_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id", "session_id"],
            ["routeguard_sessions.user_id", "routeguard_sessions.id"],
            ondelete="CASCADE",
            name="fk_routeguard_refresh_families_session",
        ),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_routeguard_refresh_families"),
    )
    op.create_index("routeguard_refresh_families_by_session", "routeguard_refresh_families", ["user_id", "session_id"])


def _api_keys() -> None:
    op.create_table(
        "routeguard_api_keys",
        sa.Column("owner_id", sa.String(40), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(32), nullable=True),
        sa.Column("previous_until", sa.Float(), nullable=True),
        sa.Column("last_four", sa.String(4), nullable=False),
        sa.Column("privilege", sa.String(10), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("networks", sa.Text(), nullable=False),
        sa.Column("rate", sa.String(60), nullable=True),
        sa.Column("remaining", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("last_used_at", sa.Float(), nullable=True),
        sa.Column("usage_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["routeguard_users.id"], name="fk_routeguard_api_keys_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner_id", "id", name="pk_routeguard_api_keys"),
    )
    op.create_index("routeguard_api_keys_by_id", "routeguard_api_keys", ["id"], unique=True)
    op.create_index("routeguard_api_keys_by_user", "routeguard_api_keys", ["user_id"])


def downgrade() -> None:
    for name in ("routeguard_clients", "routeguard_api_keys", "routeguard_refresh_families", "routeguard_signing_keys"):
        op.drop_table(name)
