"""An application whose users sign in elsewhere: guarded by the word of one identity service, without a database.

    uv run routeguard client create notes
    IDENTITY_CLIENT_ID=cli_... IDENTITY_CLIENT_SECRET=rgs_... uv run uvicorn examples.remote:app --port 9000

Then ask it as somebody who signed in at the service: curl -H "Authorization: Bearer $ACCESS_TOKEN" http://127.0.0.1:9000/me
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from routeguard import Principal, Routeguard, Settings, User, UserSession, public

app = FastAPI(title="Notes of people who sign in elsewhere")
guard: Routeguard[User] = Routeguard.remote(
    os.environ.get("IDENTITY_URL", "http://127.0.0.1:8000"),
    os.environ["IDENTITY_CLIENT_ID"],
    os.environ["IDENTITY_CLIENT_SECRET"],
    settings=Settings.load(issuer="http://127.0.0.1:9000"),  # This application's own origin.
)
guard.install(app, default=guard.session())

Session = Annotated[UserSession[User], Depends(guard.current_session)]


@app.get("/")
@guard(public)
async def home() -> dict[str, str]:
    return {"hello": "everybody"}


@app.get("/me")
async def me(session: Session) -> dict[str, str]:
    return {"id": session.user.id, "email": session.user.email}


@app.get("/reports")
@guard(guard.api_key("reports:read") | guard.session(user={"role": "admin"}))
async def reports(caller: Annotated[Principal, Depends(guard.current)]) -> dict[str, str]:
    return {"for": caller.principal_id}
