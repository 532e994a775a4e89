"""Where API keys are kept."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from routeguard.db.schema import metadata

api_keys: Final = sa.Table(
    "api_keys",
    metadata,
    sa.Column("owner_id", sa.String(40), primary_key=True),
    sa.Column("id", sa.String(40), primary_key=True),
    # Who made it, or whose it is: a key dies with its maker (attack KEY-18).
    sa.Column("user_id", sa.String(40), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(100), nullable=False),
    # Of over 256 random bits, so that a dump of this table opens nothing.
    sa.Column("secret_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("previous_hash", sa.LargeBinary(32)),
    sa.Column("previous_until", sa.Float),
    sa.Column("last_four", sa.String(4), nullable=False),
    sa.Column("privilege", sa.String(10), nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("networks", sa.Text, nullable=False),
    sa.Column("rate", sa.String(60)),
    sa.Column("remaining", sa.Integer),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("last_used_at", sa.Float),
    sa.Column("usage_count", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("api_keys_by_id", "id", unique=True),
    sa.Index("api_keys_by_user", "user_id"),
)
