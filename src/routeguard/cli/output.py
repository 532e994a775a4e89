"""Standard output and error of a command: what their reader does is not the command's fault."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Output(io.FileIO):
    """A file descriptor whose first failed write is remembered, and after which everything is dropped.

    So `routeguard user list | head` does its work to the end and exits as it would without `head`.
    """

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write what can be written; pretend it of the rest."""
        size = memoryview(data).nbytes
        if self.failure is not None:
            return size
        try:
            while (written := super().write(data)) is None:
                # The other end made the descriptor non-blocking, and is behind with reading.
                select.select([], [self], [])
        except OSError as error:
            self.failure = error
            return size
        return written


class Outputs:
    """Both streams of this process, replaced by ones that survive their reader.

    Letters that a stream's encoding lacks are written escaped.
    """

    def __init__(self) -> None:
        self._raw: list[Output] = []
        sys.stdout = self._replaced(sys.stdout)
        sys.stderr = self._replaced(sys.stderr)

    def finish(self) -> OSError | None:
        """Write what is buffered; return what kept the output from its reader, unless it closed it itself."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        failures = [raw.failure for raw in self._raw if raw.failure is not None]
        return next((failure for failure in failures if failure.errno != errno.EPIPE), None)

    def _replaced(self, stream: TextIO | None) -> TextIO:
        if stream is None:
            # Closed before we began (`>&-`). Python has no stream then, and every write would be an AttributeError.
            return Path(os.devnull).open("w", encoding="utf-8")
        if not isinstance(stream, io.TextIOWrapper):
            return stream
        stream.reconfigure(errors="backslashreplace")
        if stream.isatty():
            return stream
        stream.flush()
        raw = Output(stream.fileno(), "w", closefd=False)
        self._raw.append(raw)
        return io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
