"""A client of the identity service for Python programs, sync and async."""
