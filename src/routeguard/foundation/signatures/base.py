"""The signature base: the text that is signed (RFC 9421 section 2.5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from routeguard.foundation.signatures.models import Message, SignatureError

if TYPE_CHECKING:
    from collections.abc import Sequence

_VISIBLE: Final = re.compile(r"[\x20-\x7e\t]*")
_DERIVED: Final[dict[str, Callable[[Message], str]]] = {
    "@method": lambda message: message.method,
    "@authority": lambda message: message.authority,
    "@path": lambda message: message.path,
    "@query": lambda message: message.query,
    "@request-target": lambda message: message.target,
}


def signature_base(message: Message, components: Sequence[str], parameters: str) -> bytes:
    """Return what is signed: a line for each component and one for the parameters.

    Raises SignatureError for a derived component that is not known here, a field the message does not have exactly
    once, and a value with a line break in it, which could pass for a component of its own (section 7.5.6).
    """
    if _VISIBLE.fullmatch(parameters) is None:
        raise SignatureError("the parameters are not visible ASCII")
    lines = [f'"{name}": {_value(message, name)}' for name in components]
    lines.append(f'"@signature-params": {parameters}')
    return "\n".join(lines).encode("ascii")


def _value(message: Message, name: str) -> str:
    derive = _DERIVED.get(name)
    if derive is None and name.startswith("@"):
        raise SignatureError("a derived component is not known")
    value = message.headers.get(name) if derive is None else derive(message)
    if value is None:
        raise SignatureError("a covered field is not in the message, or there twice")
    if _VISIBLE.fullmatch(value) is None:
        raise SignatureError("a covered value is not visible ASCII")
    return value.strip(" \t") if derive is None else value
