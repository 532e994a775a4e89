"""How many bytes a request may bring."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from typing_extensions import override

from routeguard.core.policy import Attack, Policy
from routeguard.core.rate import parse_size
from routeguard.protection.guard.transport import BodyLimited


def body_limit(size: str | int) -> Policy:
    """Return the policy that answers 413 to a body over `size`, such as ``"2 KB"`` (2,048 bytes).

    A declared length over it is refused before anything is read; the edge counts what really comes, declared,
    chunked or lying. Holds for every method (attack BODY-20). Raises ConfigError for a size that cannot be read.
    """
    return Policy((BodyLimit(parse_size(size)),))


@dataclass(frozen=True, slots=True)
class BodyLimit(BodyLimited):
    """The body has at most `body_limit` bytes."""

    body_limit: int
    """In bytes. The guard reads it too, and counts to it while the body comes in."""

    @override
    def describe(self) -> str:
        return f"body up to {_words(self.body_limit)}"

    @override
    def attacks(self) -> Iterable[Attack]:
        """A byte too many, lengths that are none, and a body that grows when it is unpacked."""
        yield Attack(name="one byte over the limit", status=413, method="POST", body=b"x" * (self.body_limit + 1))
        for length in ("-1", "+1", "1e1", "0x10", "1,1", "", "٣".encode().decode("latin-1"), "9" * 5000):
            headers = (("content-length", length),)
            yield Attack(name=f"Content-Length {length[:8]}", status=400, method="POST", headers=headers)
        both = (("content-length", "1"), ("transfer-encoding", "chunked"))
        yield Attack(name="Content-Length and Transfer-Encoding", status=400, method="POST", headers=both)
        coded = (("content-encoding", "gzip"),)
        yield Attack(name="compressed body", status=415, method="POST", headers=coded, body=b"\x1f\x8b")


def _words(size: int) -> str:
    for name, factor in (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if size and size % factor == 0:
            return f"{size // factor} {name}"
    return f"{size} bytes"
