"""What reading a token may come to."""

from __future__ import annotations


class InvalidToken(ValueError):
    """A token that must not be believed. `reason` is one word for the log; nothing of the token is in it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"invalid token: {reason}")


class UnusableKey(InvalidToken):
    """A key no token may be verified with; nothing of the key is in it."""
