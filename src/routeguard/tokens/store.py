"""Where signing keys and refresh families are kept."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from routeguard.db.schema import metadata

signing_keys: Final = sa.Table(
    "signing_keys",
    metadata,
    # Of several processes that make the next key at once, one can insert its number (attack class of SES-05).
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kid", sa.String(64), nullable=False, unique=True),
    sa.Column("algorithm", sa.String(10), nullable=False),
    # Sealed with a key derived from the secret: a dump of this table signs nothing.
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("public", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("signs_from", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
)

refresh_families: Final = sa.Table(
    "refresh_families",
    metadata,
    sa.Column("user_id", sa.String(40), primary_key=True),
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("session_id", sa.String(40), nullable=False),
    sa.Column("client_id", sa.String(40), nullable=False),
    # One row a family, and in it one live token: two live leaves cannot be written down (attacks SES-04, SES-14).
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("current_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("binding", sa.LargeBinary(32), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    # By the database's clock, which all processes share: a grace told by two clocks is none (attack OPS-10).
    sa.Column("rotated_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    # Whatever ends the session ends its families, in the same transaction (attacks SES-08, SES-09).
    sa.ForeignKeyConstraint(
        ["user_id", "session_id"], ["sessions.user_id", "sessions.id"], ondelete="CASCADE",
        name="fk_refresh_families_session",
    ),
    sa.Index("refresh_families_by_session", "user_id", "session_id"),
    sa.Index("refresh_families_by_expiry", "expires_at"),
)  # fmt: skip
