"""Mail for development: printed where the developer looks anyway."""

from __future__ import annotations

import re
import sys
from collections import deque
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from routeguard.foundation.mail.protocol import Message

_KEPT: Final = 100
# A name in a mail must not drive the terminal it is printed on (attack OBS-01).
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ConsoleMailer:
    """Prints each message; `sent` keeps the last hundred, for tests."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self.sent: deque[Message] = deque(maxlen=_KEPT)

    async def send(self, message: Message) -> None:
        """Print the message."""
        self.sent.append(message)
        stream = self._stream or sys.stdout
        rule = "─" * 72
        text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", message.text.strip())
        print(f"\n{rule}\nMail to {message.to}: {message.subject}\n\n{text}\n{rule}\n", file=stream, flush=True)
