"""The adapter of FastAPI: that of Starlette, and what FastAPI answers and says by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, FastAPI

from routeguard.protection.adapters.fastapi.errors import answer_fastapi_errors
from routeguard.protection.adapters.fastapi.openapi import describe
from routeguard.protection.adapters.starlette.adapter import StarletteAdapter

if TYPE_CHECKING:
    from routeguard.protection.adapters.protocol import Adapter, Parts
    from routeguard.protection.guard.guard import Guard


class FastAPIAdapter(StarletteAdapter):
    """The routes of FastAPI are Starlette's, so that only descriptions and errors are its own."""

    def handles(self, app: Any) -> bool:
        """Return whether `app` is an application or a router."""
        return isinstance(app, FastAPI | APIRouter)

    def describe(self, app: Any, guard: Guard, parts: Parts, around: tuple[Any, ...] = ()) -> None:
        """Have ``app.openapi()`` list what the guard answers and takes."""
        describe(app, guard, parts.credentials(), around=around)

    def answer_errors(self, app: Any) -> None:
        """Answer the framework's errors as problems, its own for what cannot be validated too."""
        answer_fastapi_errors(app)


ADAPTER: Final[Adapter] = FastAPIAdapter()
