"""A psycopg connection with a limit of our own on every wait for the server."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

if TYPE_CHECKING:
    from psycopg.abc import PQGen

RV = TypeVar("RV")

logger = logging.getLogger("routeguard.db")


class WatchedConnection(psycopg.AsyncConnection[Any]):
    """A connection that gives a silent server up.

    A stopped process (SIGSTOP, a frozen VM) keeps acknowledging TCP, so neither keep-alive nor TCP user timeout ends
    the wait. Shutting the socket down makes libpq see the end of file, and every layer above cleans up as usual.
    """

    patience: float = 2.0

    async def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """Wait for the server, no longer than `patience` seconds."""
        handle = asyncio.get_running_loop().call_later(self.patience, _shut_down, self.pgconn.socket)
        try:
            return await super().wait(gen, *args, **kwargs)
        finally:
            handle.cancel()

    @property
    def stale(self) -> bool:
        """Whether the server has hung up while the connection lay idle."""
        if self.closed:
            return True
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN | select.POLLHUP)
        # An idle connection has nothing to say, except good-bye.
        return bool(poll.poll(0))


def _shut_down(number: int) -> None:
    with socket.socket(fileno=os.dup(number)) as copy:
        try:
            copy.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # It has ended by itself.
    logger.warning("the database does not answer; its connection is given up")
