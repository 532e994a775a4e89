"""Requests that two readers could divide differently (RFC 9112 section 6), with another one hidden behind each."""

from __future__ import annotations

from typing import Final

_EMPTY: Final = b"0\r\n\r\n"
_ONE: Final = b"1\r\na\r\n0\r\n\r\n"


def _lines(*lines: bytes) -> tuple[bytes, bytes]:
    return b"".join(line + b"\r\n" for line in lines), _EMPTY


MISFRAMED: Final[dict[str, tuple[bytes, bytes]]] = {
    "length and chunked": _lines(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunked and length": _lines(b"Transfer-Encoding: chunked", b"Content-Length: 6"),
    "no length and chunked": _lines(b"Content-Length: 0", b"Transfer-Encoding: chunked"),
    "length of all and chunked": _lines(b"Content-Length: 60", b"Transfer-Encoding: chunked"),
    "both, to be kept": _lines(b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: keep-alive"),
    "identity": _lines(b"Transfer-Encoding: identity"),
    "identity and length": _lines(b"Transfer-Encoding: identity", b"Content-Length: 0"),
    "xchunked": _lines(b"Transfer-Encoding: xchunked"),
    "gzip, chunked": _lines(b"Transfer-Encoding: gzip, chunked"),
    "chunked, identity": _lines(b"Transfer-Encoding: chunked, identity"),
    "chunked, chunked": _lines(b"Transfer-Encoding: chunked, chunked"),
    "comma chunked": _lines(b"Transfer-Encoding: ,chunked"),
    "chunked comma": _lines(b"Transfer-Encoding: chunked,"),
    "chunked twice": _lines(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "identity, then chunked": _lines(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"),
    "chunked, then identity": _lines(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    "chunked with a parameter": _lines(b"Transfer-Encoding: chunked;q=1"),
    "chunked in quotes": _lines(b'Transfer-Encoding: "chunked"'),
    "chunked after VT": _lines(b"Transfer-Encoding: \x0bchunked"),
    "no coding": _lines(b"Transfer-Encoding:"),
    "no coding and length": _lines(b"Transfer-Encoding:", b"Content-Length: 5"),
    "space before the colon of the coding": _lines(b"Transfer-Encoding : chunked", b"Content-Length: 5"),
    "tab before the colon of the coding": _lines(b"Transfer-Encoding\t: chunked", b"Content-Length: 5"),
    "space before the colon of the length": _lines(b"Content-Length : 5"),
    "space before any colon": _lines(b"X-Other : a", b"Content-Length: 5"),
    "folded coding and length": _lines(b"Transfer-Encoding:\r\n chunked", b"Content-Length: 5"),
    "two lengths in folds": _lines(b"Content-Length: 0\r\n 5"),
    "lengths that differ": _lines(b"Content-Length: 0", b"Content-Length: 5"),
    "lengths that differ the other way": _lines(b"Content-Length: 5", b"Content-Length: 0"),
    "a list of lengths that differ": _lines(b"Content-Length: 5, 0"),
    "+5": _lines(b"Content-Length: +5"),
    "-5": _lines(b"Content-Length: -5"),
    "0x5": _lines(b"Content-Length: 0x5"),
    "5 5": _lines(b"Content-Length: 5 5"),
    "no digits": _lines(b"Content-Length:"),
    "more than an exabyte": _lines(b"Content-Length: 18446744073709551621"),
    "CR alone": _lines(b"X-Other: a\rContent-Length: 5"),
    "coding after CR alone": _lines(b"X-Other: a\rTransfer-Encoding: chunked", b"Content-Length: 5"),
    "coding after LF alone": _lines(b"X-Other: a\nTransfer-Encoding: chunked", b"Content-Length: 5"),
    "NUL": _lines(b"X-Other: a\0b", b"Content-Length: 5"),
    "a field without a colon": _lines(b"Content-Length 5"),
    "a field without a name": _lines(b": a", b"Content-Length: 5"),
    "chunks that end with LF": (b"Transfer-Encoding: chunked\r\n", b"1\na\n0\n\n"),
    "a chunk's size that ends with LF": (b"Transfer-Encoding: chunked\r\n", b"1\na\r\n0\r\n\r\n"),
    "LF in a chunk's extension": (b"Transfer-Encoding: chunked\r\n", b"1;a\nb\r\na\r\n0\r\n\r\n"),
    "a chunk of 0x1": (b"Transfer-Encoding: chunked\r\n", b"0x1\r\na\r\n0\r\n\r\n"),
    "a chunk of +1": (b"Transfer-Encoding: chunked\r\n", b"+1\r\na\r\n0\r\n\r\n"),
    "a chunk of -1": (b"Transfer-Encoding: chunked\r\n", b"-1\r\na\r\n0\r\n\r\n"),
    "a chunk longer than it says": (b"Transfer-Encoding: chunked\r\n", b"1\r\naXX0\r\n\r\n"),
}
"""By name: fields after Host, and the body. Any server has to refuse these, or any application behind it."""

KINDLY_READ: Final[dict[str, tuple[bytes, bytes]]] = {
    "folded coding": _lines(b"Transfer-Encoding:\r\n chunked"),
    "coding inside a fold": _lines(b"X-Other: a\r\n Transfer-Encoding: chunked", b"Content-Length: 5"),
    "any fold": _lines(b"X-Other: a\r\n b", b"Content-Length: 5"),
    "a fold with a tab": _lines(b"X-Other: a\r\n\tb", b"Content-Length: 5"),
    "folded length": _lines(b"Content-Length:\r\n 5"),
    "one length twice": _lines(b"Content-Length: 5", b"Content-Length: 5"),
    "one length twice in a list": _lines(b"Content-Length: 5, 5"),
    "LF at the end of a line": (b"X-Other: a\nContent-Length: 5\r\n", _EMPTY),
    "LF before the body": (b"Content-Length: 5\r\n\n", _EMPTY),
}
"""What h11 reads, as RFC 9112 sections 2.2, 5.2 and 6.3 permit, without telling the application."""

SOUND: Final[dict[str, tuple[bytes, bytes]]] = {
    "length": _lines(b"Content-Length: 5"),
    "length with a zero before it": _lines(b"Content-Length: 05"),
    "chunked": (b"Transfer-Encoding: chunked\r\n", _ONE),
    "Chunked": (b"transfer-encoding:\tChunked \r\n", _ONE),
    "a chunk with an extension": (b"Transfer-Encoding: chunked\r\n", b"1;a=b\r\na\r\n0\r\n\r\n"),
    "trailer": (b"Transfer-Encoding: chunked\r\n", b"1\r\na\r\n0\r\nX-Other: a\r\n\r\n"),
}
"""After these the next request on the connection is answered."""


def request(target: str, fields: bytes, body: bytes, *, method: str = "POST") -> bytes:
    """Return one request."""
    return f"{method} {target} HTTP/1.1\r\nHost: testserver\r\n".encode() + fields + b"\r\n" + body
