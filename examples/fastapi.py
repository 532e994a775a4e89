"""A guarded FastAPI application with sign-in of its own, in one file.

    uv run routeguard migrate && uv run uvicorn examples.fastapi:app

Then open http://127.0.0.1:8000/auth/sign-up and, signed in, http://127.0.0.1:8000/notes
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, WebSocket
from pydantic import BaseModel, Field

from routeguard import Routeguard, User, UserSession, body_limit, public


@dataclass(frozen=True, slots=True, kw_only=True)
class AppUser(User):
    """Your own user: its new fields have defaults, and rules see their types."""

    plan: Literal["free", "pro"] = "free"


app = FastAPI(title="Notes")
guard = Routeguard(user=AppUser)
signed_in = guard.session()
guard.install(app, default=signed_in)  # A handler that says nothing is not open.

Session = Annotated[UserSession[AppUser], Depends(guard.current_session)]

staff = guard.session(user={"role": ["moderator", "admin"]})
paying = guard.session(rule=lambda session: session.user.plan == "pro")
deleting = signed_in & guard.fresh(minutes=5)  # Policies are values; `&` asks for all of them.


class Note(BaseModel):
    text: str = Field(max_length=2000)


notes: dict[str, list[Note]] = {}


@app.get("/")
@guard(public)
async def home() -> dict[str, str]:
    return {"hello": "everybody"}


@app.get("/notes")
async def list_notes(session: Session) -> list[Note]:
    return notes.get(session.user.id, [])


@app.post("/notes", status_code=201)
@guard(signed_in, body_limit("4 KB"))
async def add_note(note: Note, session: Session) -> Note:
    notes.setdefault(session.user.id, []).append(note)
    return note


@app.delete("/notes", status_code=204)
@guard(deleting)
async def delete_notes(session: Session) -> None:
    notes.pop(session.user.id, None)


@app.get("/report")
@guard(staff)
async def report() -> dict[str, int]:
    return {"authors": len(notes), "notes": sum(map(len, notes.values()))}


@app.websocket("/echo")
@guard(signed_in)
async def echo(socket: WebSocket, session: Session) -> None:
    await socket.accept()
    await socket.send_text(f"{session.user.email}: {await socket.receive_text()}")
