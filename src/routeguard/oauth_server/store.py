"""Where registered clients are kept."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from routeguard.db.schema import metadata

clients: Final = sa.Table(
    "clients",
    metadata,
    # `cli_...`: never to be taken for a user's id (RFC 9700 section 4.15).
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("name", sa.String(100), nullable=False),
    # Ed25519, derived from the secret that was shown once: a dump of this table signs nothing.
    sa.Column("public_key", sa.LargeBinary(32), nullable=False),
    sa.Column("previous_public_key", sa.LargeBinary(32)),
    sa.Column("previous_until", sa.Float),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
)
