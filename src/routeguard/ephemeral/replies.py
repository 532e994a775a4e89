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
BUSY, NOPERM, WRONGPASS and the rest   503. WRONGPASS comes in answer to a greeting only: there is no connection.
====================================== =============================================================================
"""

from __future__ import annotations

import re
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
