"""What ends a one-time token before its time."""

from __future__ import annotations

from enum import Enum


class Ending(Enum):
    """A change of a user that voids the tokens of every purpose that names it. Deleting the user voids all.

    The values are bits, and stored with the token: a process that has never heard of its purpose voids it too.
    """

    PASSWORD = 1
    """The password was changed, reset or removed."""
    EMAIL = 2
    """The user has another address."""
    SUSPENSION = 4
    """The user was suspended."""
