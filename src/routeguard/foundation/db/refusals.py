"""What a database server says when it will not let us in, for a reason that only an operator can mend.

libpq gives no SQLSTATE for a connection that fails (PostgreSQL documentation, "PQerrorMessage"), so its text is read.
A server that speaks another language than English (`lc_messages`) is therefore only said to be away.
"""

from __future__ import annotations

import re
from typing import Final

_REFUSALS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), finding)
    for pattern, finding in (
        (
            r"password authentication failed|SASL authentication failed|wrong password type",
            "refuses the user or the password of database_url",
        ),
        (r"no password supplied|password is required|empty password", "wants a password, and database_url has none"),
        (
            r"\w+ authentication failed for user",
            "refuses the user of database_url (peer, ident, certificate or another method of pg_hba.conf)",
        ),
        (r"role .* does not exist|no such user|Tenant or user not found", "knows no such user as database_url names"),
        (r"role .* is not permitted to log in", "does not permit the user of database_url to log in"),
        (r"database .* does not exist|no such database", "does not exist on that server"),
        (r"permission denied for database", "does not let the user of database_url use this database"),
        # The twin of it, with encryption, is a plain refusal.
        (
            r"(no pg_hba\.conf entry|pg_hba\.conf rejects connection).*no encryption",
            "has no entry in pg_hba.conf that admits us without TLS (does database_url need ?sslmode=require?)",
        ),
        (
            r"no pg_hba\.conf entry|pg_hba\.conf rejects connection",
            "has no entry in pg_hba.conf that admits this user, database and address",
        ),
        (
            r"SSL required|SSL connection is required|insecure.*connection|must use SSL",
            "takes connections with TLS only: add ?sslmode=require to database_url",
        ),
        (r"does not support SSL", "has no TLS, and database_url asks for it"),
        (
            r"certificate verify failed|server certificate for .* does not match|could not verify",
            "shows a TLS certificate that sslmode and sslrootcert of database_url do not accept",
        ),
        (
            r"certificate file .* does not exist|private key file|could not (read|load|open) .*(certificate|key)",
            "cannot be reached: a certificate or key file that database_url names cannot be read",
        ),
        (r"requires a valid client certificate", "wants a client certificate (sslcert and sslkey of database_url)"),
        (r"channel binding required", "does not offer the channel binding that database_url requires"),
        (
            r"unsupported startup parameter",
            "is behind a pooler that takes no options: leave them out of database_url (use ALTER ROLE ... SET)",
        ),
        (r"statement pooling mode", "is behind a pooler by statement, which knows no transactions: use another mode"),
        # SQLite.
        (
            r"^cannot open: |unable to open database file",
            "cannot be opened: its folder must exist, and this process must be able to write there",
        ),
        (r"file is not a database", "is no SQLite database"),
        (
            r"connection is bad: invalid ",
            "cannot be reached: the port, sslmode or another option of database_url has no such value",
        ),
        (
            r"unrecognized configuration parameter|invalid value for parameter",
            "does not know a parameter in the options of database_url",
        ),
    )
)


_QUOTED: Final = re.compile(r"""(?<! ) *+(?:"[^"]*"|'[^']*')""")


def unreadable(error: Exception) -> str:
    """Return why a URL cannot be read, in libpq's words without what they quote: it may be part of the password."""
    words = _QUOTED.sub("", str(error).strip()).rstrip(": ")
    return f"database_url cannot be read: {words} (other characters than letters, digits, - and _ are percent-encoded)"


def refusal_of(text: str) -> str | None:
    """Return in words of our own what a server's refusal means, or None when the text is that of an outage.

    Nothing of the text is repeated: it names users, addresses and databases (attack OBS-03).
    """
    for pattern, finding in _REFUSALS:
        if pattern.search(text):
            return finding
    return None
