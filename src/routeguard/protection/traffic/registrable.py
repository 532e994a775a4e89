"""Which names anybody can register: the Public Suffix List (publicsuffix.org), private section included.

It stands here and not in `core`, which imports the standard library alone. The list is a file of the installed
package `publicsuffixlist`: nothing is fetched, and it is as recent as the installation.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from routeguard.core.address import parse_address

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


def registrable_domain(host: str) -> str | None:
    """Return the part of `host` that one owner registered: `example.co.uk` of `a.b.example.co.uk`.

    `host` is in lower case and ASCII, as browsers send it. None for a public suffix, which has no owner, for an
    address, and for what is no name. A top-level domain that is not on the list counts as a suffix (the list's
    default rule), so `team.internal` is registrable and `internal` is not.
    """
    return _list().privatesuffix(host) if _is_name(host) else None


def is_public_suffix(host: str) -> bool:
    """Return whether anybody can register a name directly below `host`: `co.uk`, `github.io`, `vercel.app`."""
    return _is_name(host) and _list().is_public(host)


def _is_name(host: str) -> bool:
    # The package ignores a trailing dot and case, and a browser sends neither spelling as the same origin.
    return host == host.lower() and host.isascii() and all(host.split(".")) and parse_address(host) is None


@cache
def _list() -> PublicSuffixList:
    """Load the list when the first name is asked about: it takes 50 ms, which most installations never need."""
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 - loaded only where a pattern is configured

    return PublicSuffixList()
