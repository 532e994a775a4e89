"""A feature as somebody else would write it: devices on which a user may sign in. It imports public names only."""

from __future__ import annotations

from tests.outside.devices.feature import feature as feature
