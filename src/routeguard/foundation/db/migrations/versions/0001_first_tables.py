"""Users, their passwords, sessions and mailed tokens, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "routeguard_users",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("email_key", sa.String(320), nullable=False),
        sa.Column("name", sa.String(400), nullable=False),
        sa.Column("email_verified", sa.Boolean(), nullable=False),
        sa.Column("image", sa.Text(), nullable=True),
        sa.Column("role", sa.String(40), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("suspended_at", sa.Float(), nullable=True),
        sa.Column("fields", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routeguard_users"),
        sa.UniqueConstraint("email_key", name="uq_routeguard_users_email_key"),
    )
    op.create_index("routeguard_users_by_role", "routeguard_users", ["role"])
    op.create_table(
        "routeguard_one_time_tokens",
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("purpose", sa.String(40), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["routeguard_users.id"], name="fk_routeguard_one_time_tokens_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "purpose", name="pk_routeguard_one_time_tokens"),
    )
    op.create_table(
        "routeguard_password_hashes",
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["routeguard_users.id"], name="fk_routeguard_password_hashes_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name="pk_routeguard_password_hashes"),
    )
    _sessions()
    op.create_table(
        "routeguard_outbox",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(200), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("dead_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_routeguard_outbox"),
    )
    op.create_index("ix_routeguard_outbox_due", "routeguard_outbox", ["dead_at", "due_at"])


def _sessions() -> None:
    op.create_table(
        "routeguard_sessions",
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("authenticated_at", sa.Float(), nullable=False),
        sa.Column("last_seen_at", sa.Float(), nullable=False),
        sa.Column("idle_expires_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("amr", sa.String(200), nullable=False),
        sa.Column("aal", sa.Integer(), nullable=False),
        sa.Column("user_agent", sa.String(200), nullable=True),
        sa.Column("address", sa.String(45), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["routeguard_users.id"], name="fk_routeguard_sessions_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_routeguard_sessions"),
    )
    op.create_index("routeguard_sessions_by_expiry", "routeguard_sessions", ["idle_expires_at"])
    op.create_table(
        "routeguard_session_invalidations",
        sa.Column("id", _number, autoincrement=True, nullable=False),
        sa.Column("subject", sa.String(40), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routeguard_session_invalidations"),
        sqlite_autoincrement=True,
    )
    op.create_index("routeguard_session_invalidations_by_time", "routeguard_session_invalidations", ["at"])


def downgrade() -> None:
    for name in (
        "routeguard_outbox",
        "routeguard_session_invalidations",
        "routeguard_sessions",
        "routeguard_password_hashes",
        "routeguard_one_time_tokens",
        "routeguard_users",
    ):
        op.drop_table(name)
