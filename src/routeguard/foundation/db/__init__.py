"""Records: one SQL database, SQLite embedded or PostgreSQL for scale."""
