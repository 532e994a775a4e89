"""The example application. Read it from top to bottom: each handler says above itself who may call it."""

# Annotations are evaluated here, not postponed: FastAPI reads them, and `Session` is made for one application,
# so it is a variable inside a function, which pyright knows no form for.
# pyright: reportInvalidTypeForm=false
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response, WebSocket

from routeguard.app import Routeguard
from routeguard.core.clock import Clock
from routeguard.core.policy import public
from routeguard.core.principal import Principal
from routeguard.core.problem import NOT_FOUND
from routeguard.example import store
from routeguard.example.chat import Room
from routeguard.example.models import Data, Invoice, InvoiceIn, Me, Report
from routeguard.foundation.db.database import Database
from routeguard.foundation.web.health import Readiness, health_routes
from routeguard.foundation.web.pages import Pages
from routeguard.identity.sessions.models import UserSession
from routeguard.identity.sessions.routes import exchange_of
from routeguard.identity.ui.templates import FOLDER
from routeguard.identity.users.models import User
from routeguard.protection.traffic.strict_json import strict_json
from routeguard.settings import Settings

PAGES = Pages(Path(__file__).parent / "templates", FOLDER)


def create(settings: Settings) -> FastAPI:
    """Return the guarded application. Nothing is opened before its first lifespan event."""
    guard = Routeguard(settings, user=User)
    # The interactive documentation would load scripts from elsewhere; the description itself is enough here.
    app = FastAPI(title="Routeguard example", version="1", docs_url=None, redoc_url=None)
    app.state.guard = guard
    guard.install(app, docs=public)
    app.router.routes.extend(health_routes(guard.services.get(Readiness).check))
    _add_pages(app, guard)
    _add_people(app, guard)
    _add_invoices(app, guard)
    _add_chat(app, guard)
    return app


def _add_pages(app: FastAPI, guard: Routeguard[User]) -> None:
    matrix = cache(guard.matrix)

    @app.get("/", include_in_schema=False)
    @guard(guard.optional_session())
    async def start(request: Request) -> Response:
        session = await guard.find_session(request)
        return PAGES.render(
            "start.html",
            errors=(),
            user=session.user if session else None,
            groups=_groups(matrix()),
            root=exchange_of(request).root,
        )


def _add_people(app: FastAPI, guard: Routeguard[User]) -> None:
    Session = Annotated[UserSession[User], Depends(guard.current_session)]  # noqa: N806 - a type
    database = guard.services.get(Database)
    staff = guard.session(user={"role": ["admin", "moderator"]})

    @app.get("/api/me")
    @guard(guard.session())
    async def me(session: Session) -> Me:
        return Me(id=session.user.id, name=session.user.name, email=session.user.email)

    @app.get("/api/v1/data")
    @guard(guard.session() | guard.api_key())
    async def data(caller: Annotated[Principal, Depends(guard.current)]) -> Data:
        return Data(caller=caller.principal_id)

    @app.get("/api/admin/report")
    @guard(staff)
    async def report() -> Report:
        async with database.read() as tx:
            invoices, total = await store.totals(tx)
            return Report(users=await store.count_users(tx), invoices=invoices, total=total)


def _add_invoices(app: FastAPI, guard: Routeguard[User]) -> None:
    Session = Annotated[UserSession[User], Depends(guard.current_session)]  # noqa: N806 - a type
    database, clock = guard.services.get(Database), guard.services.get(Clock)
    signed_in = guard.session()
    # FastAPI's own reader takes the last of two members of one name; a body with two meanings does not reach it.
    writes = signed_in & strict_json()

    @app.get("/api/invoices")
    @guard(signed_in)
    async def list_invoices(session: Session) -> list[Invoice]:
        async with database.read() as tx:
            return await store.newest(tx, session.user.id)

    @app.post("/api/invoices", status_code=201)
    @guard(writes)
    async def create_invoice(invoice: InvoiceIn, session: Session) -> Invoice:
        async with database.transaction() as tx:
            return await store.insert(tx, session.user.id, title=invoice.title, amount=invoice.amount, now=clock.time())

    @app.get("/api/invoices/{invoice_id}")
    @guard(signed_in)
    async def show_invoice(invoice_id: str, session: Session) -> Invoice:
        async with database.read() as tx:
            return _found(await store.find(tx, session.user.id, invoice_id))

    @app.put("/api/invoices/{invoice_id}")
    @guard(writes)
    async def change_invoice(invoice_id: str, invoice: InvoiceIn, session: Session) -> Invoice:
        async with database.transaction() as tx:
            return _found(
                await store.update(tx, session.user.id, invoice_id, title=invoice.title, amount=invoice.amount)
            )

    @app.delete("/api/invoices/{invoice_id}", status_code=204)
    @guard(signed_in)
    async def delete_invoice(invoice_id: str, session: Session) -> None:
        async with database.transaction() as tx:
            if not await store.delete(tx, session.user.id, invoice_id):
                raise NOT_FOUND().error()


def _add_chat(app: FastAPI, guard: Routeguard[User]) -> None:
    Session = Annotated[UserSession[User], Depends(guard.current_session)]  # noqa: N806 - a type
    room = Room()

    @app.websocket("/ws/chat")
    @guard(guard.session())
    async def chat(socket: WebSocket, session: Session) -> None:
        await room.join(socket, session)


def _found(invoice: Invoice | None) -> Invoice:
    """Return it, or say 404: another user's invoice and a missing one look the same (attack AZ-01)."""
    if invoice is None:
        raise NOT_FOUND().error()
    return invoice


def _groups(matrix: Any) -> list[dict[str, Any]]:
    """Return the protection matrix as the start page shows it: the application's own routes, then ours."""
    rows = [{"method": row.method, "path": row.path, "policy": row.policy, "kind": _kind(row.policy)} for row in matrix]
    rows.sort(key=lambda row: row["path"] in {"/openapi.json", "/healthz", "/readyz"})
    ours = [row for row in rows if row["path"].startswith(("/auth", "/account"))]
    return [
        {"title": "This application", "rows": [row for row in rows if row not in ours]},
        {"title": "The identity service in it", "rows": ours},
    ]


def _kind(policy: str) -> str:
    if not {"public", "anyone"}.isdisjoint(policy.split(", ")):
        return "open"
    return "staff" if "role" in policy else "closed"
