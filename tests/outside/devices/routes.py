"""The routes and the page of devices."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from routeguard import Endpoint, Services, UserSession, body_limit, csrf, principal_of, public, rate_limit, session
from tests.outside.devices.checks import Device, device
from tests.outside.devices.service import Devices


def routes(services: Services) -> list[Endpoint]:
    devices = services.get(Devices)

    async def add(request: Request) -> Response:
        caller = principal_of(request, UserSession)
        await devices.add(request.path_params["id"], caller.principal_id)
        return JSONResponse({"added": request.path_params["id"]}, status_code=201)

    async def me(request: Request) -> Response:
        return JSONResponse({"user": principal_of(request, Device).user_id})

    async def page(request: Request) -> Response:
        return HTMLResponse("<!doctype html><title>Devices</title><p>Your devices.")

    return [
        Endpoint("POST", "/auth/devices/{id}", add, session() & csrf() & body_limit("1 KB")),
        Endpoint("GET", "/auth/devices/me", me, device()),
        Endpoint("GET", "/account/devices", page, public & rate_limit("60/minute")),
    ]
