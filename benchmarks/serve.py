"""One server process for `benchmarks.sockets`: ``python -m benchmarks.serve bare|six FD``. Prints the cookie first."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

import uvicorn

from benchmarks.apps import fastapi_app, running, six


async def main(kind: str, file: int) -> None:
    """Serve on an open socket until told to end. Both kinds sign somebody in, so both are sent the same request."""
    async with running(fastapi_app, six) as ours:
        app = ours.app if kind == "six" else fastapi_app(None, None)
        config = uvicorn.Config(app, log_level="critical", access_log=False, proxy_headers=False, lifespan="off")
        print(ours.cookie.decode(), flush=True)
        await uvicorn.Server(config).serve([socket.socket(fileno=file)])


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
