"""What the how-to page tells people to write does what it says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from routeguard import Routeguard
from routeguard.foundation.db.database import Database
from routeguard.identity.oauth_server.service import Clients
from tests.client.conftest import Service

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-the-clients.md"
BLOCK = re.compile(r"^```python fragment\n(.*?)^```$", re.DOTALL | re.MULTILINE)


async def register(service: Service) -> tuple[str, str]:
    guard = Routeguard(service.guard.settings)
    await guard.start()
    try:
        async with guard.services.get(Database).transaction() as tx:
            return await guard.services.get(Clients).create(tx, "docs")
    finally:
        await guard.close()


def test_the_page(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    assert len(blocks) == 4
    space: dict[str, Any] = {}
    space["client_id"], space["client_secret"] = asyncio.run(register(service))
    for number, block in enumerate(blocks):
        code = block.replace("https://id.example.com", service.url)
        compiled = compile(code, f"block {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if compiled.co_flags & inspect.CO_COROUTINE:
            asyncio.run(eval(compiled, space))
        else:
            exec(compiled, space)
    assert "ada" in capsys.readouterr().out
