"""`routeguard devices`"""

from __future__ import annotations

import asyncio
import sys

from routeguard import Routeguard
from tests.outside.devices.service import Devices


def count() -> int:
    """Say how many devices there are."""
    return asyncio.run(_count())


async def _count() -> int:
    guard = Routeguard()
    await guard.start()
    try:
        sys.stdout.write(f"{await guard.services.get(Devices).count()} devices\n")
    finally:
        await guard.close()
    return 0
