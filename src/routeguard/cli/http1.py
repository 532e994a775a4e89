"""HTTP/1.1 read one way only: a head that two readers could divide differently ends the connection with 400.

h11 reads kindly what RFC 9112 lets a server read kindly: lines that end with LF alone (section 2.2), values folded
over several lines (section 5.2), equal Content-Length fields sent twice (section 6.3). An application never learns of
it, while a proxy in front may have read it otherwise, and a second request could hide in the difference.
"""

from __future__ import annotations

import re
from typing import Any, Final

from h11 import RemoteProtocolError
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

_MARK: Final = re.compile(rb"\r\n\r\n|(?<!\r)\n|\r\n[ \t]")
"""The end of a head; or LF without CR, or a folded line, whichever comes first."""
_END: Final = b"\r\n\r\n"
_FRAMING: Final = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:([^\r\n]*)", re.IGNORECASE)


class StrictReceiveBuffer(ReceiveBuffer):
    """Takes heads and trailers out of what has arrived, if every reader sees the same lines in them."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines up to the first empty one, None when it has not arrived. Raises RemoteProtocolError."""
        if self._data.startswith(b"\r\n"):
            self._extract(2)
            return []
        # Three bytes back: the end may have arrived in parts.
        mark = _MARK.search(self._data, max(0, self._multiple_lines_search - 3))
        if mark is None:
            self._multiple_lines_search = len(self._data)
            return None
        if mark[0] != _END:
            raise RemoteProtocolError("a line that ends with LF alone, or a folded one")
        head = self._extract(mark.end())[: -len(_END)]
        stated = _FRAMING.findall(head)
        # Attack: of two lengths, or a length and a coding, the proxy in front believes the other one.
        if len(stated) > 1 or (stated and b"," in stated[0]):
            raise RemoteProtocolError("the length of the body is stated twice")
        return head.split(b"\r\n")


class StrictH11Protocol(H11Protocol):
    """uvicorn's h11 parser with that buffer: ``uvicorn main:app --http routeguard.cli.http1:StrictH11Protocol``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # A h11 that calls it otherwise has to be looked at first.
        if type(self.conn._receive_buffer) is not ReceiveBuffer:  # noqa: SLF001 - h11 offers no other way in
            raise TypeError("this version of h11 keeps what it received elsewhere")
        self.conn._receive_buffer = StrictReceiveBuffer()  # noqa: SLF001 - as above

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read, and close; an application that is still reading the body learns of it."""
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        if cycle is not None and not cycle.response_complete:
            # Else it would answer, too, and its second answer is an error in the log.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        super().send_400_response(msg)
