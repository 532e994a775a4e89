"""For features with tables of their own: the database, its transactions, and the collection that tables stand in.

Apart from the other public names, because these load SQLAlchemy, which the base install does not have.
"""

from __future__ import annotations

from routeguard.foundation.db.database import Database as Database
from routeguard.foundation.db.database import Transaction as Transaction
from routeguard.foundation.db.schema import metadata as metadata
