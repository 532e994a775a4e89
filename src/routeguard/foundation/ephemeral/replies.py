"""What an error reply of Valkey or Redis says about the server, and so what is done about it.

====================================== =============================================================================
reply                                  what is done
====================================== =============================================================================
READONLY, MASTERDOWN, NOREPLICAS,      Not, or not any more, the server that takes our writes; or one that is only
LOADING, NOAUTH, UNBLOCKED, REDIRECT   starting, or that has forgotten who we are. The connection is given up, the name
                                       resolved anew, and the command, which was refused and not carried out, is sent
                                       once more.
MOVED, ASK, TRYAGAIN, CLUSTERDOWN      A cluster's business (see `cluster`).
NOSCRIPT                               The script is sent along.
OOM, MISCONF                           The right server, which has no room or cannot save. Another connection would say
                                       the same: 503, and not ready, until it is mended.
WRONGPASS, NOPERM, DENIED and other    A setting is wrong (`refusal_of`): a finding at start-up, an error in the log
refusals of the greeting               later. The greeting is tried again, for a password may be changed back.
BUSY and the rest                      503.
====================================== =============================================================================
"""

from __future__ import annotations

import re
import ssl
from typing import Final

import hiredis

# The word is first, or follows the place in the script that ran into it (Redis up to 6.2): ``... :64: -READONLY ...``.
_GIVES_UP: Final = re.compile(
    r"(?:^|: -)(?:READONLY|MASTERDOWN|NOREPLICAS|LOADING|NOAUTH|UNBLOCKED|REDIRECT)\b", re.ASCII
)
_FULL: Final = re.compile(r"(?:^|: -)(?:OOM|MISCONF)\b", re.ASCII)


def gives_up(error: BaseException) -> bool:
    """Return whether another connection may lead to a server that takes the command, which this one has not run."""
    return isinstance(error, hiredis.ReplyError) and _GIVES_UP.search(str(error)) is not None


def is_full(error: BaseException) -> bool:
    """Return whether it is the right server, with no room or no disk for what is to be written."""
    return isinstance(error, hiredis.ReplyError) and _FULL.search(str(error)) is not None


_REFUSALS: Final = tuple(
    (re.compile(pattern), finding)
    for pattern, finding in (
        (r"^WRONGPASS|^ERR invalid (?:username-)?password", "refuses the user or the password of ephemeral_url"),
        (r"^NOAUTH", "wants a password, and ephemeral_url has none"),
        (
            r"^ERR (?:Client sent AUTH|AUTH <password> called)",
            "has no password, and ephemeral_url has one (or a user is to be named in it)",
        ),
        (r"^NOPERM", "does not let the user of ephemeral_url run what is needed (EVALSHA, SCRIPT LOAD, SET, GET, DEL)"),
        (r"^DENIED", "runs in protected mode and takes no connection from elsewhere"),
        (r"^ERR .*DB index", "has no database of the number in ephemeral_url"),
        (
            r"^(?:MOVED|CLUSTERDOWN)|^ERR SELECT is not allowed",
            "is one server of a cluster: add ?cluster=1 to ephemeral_url, and no number of a database",
        ),
        (r"^ERR .*cluster support disabled", "is no cluster: leave cluster=1 out of ephemeral_url"),
    )
)


def refusal_of(error: BaseException) -> str | None:
    """Return in words of our own what is wrong with a setting when a server refuses us, or None for an outage."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "shows a TLS certificate that is not trusted, or is another server's"
    if isinstance(error, ssl.SSLError):
        return "does not speak TLS as ephemeral_url asks for it"
    if isinstance(error, hiredis.ReplyError):
        return next((finding for pattern, finding in _REFUSALS if pattern.search(str(error))), None)
    return None
