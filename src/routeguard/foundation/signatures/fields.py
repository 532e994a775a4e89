"""Signature-Input and Signature: read one way only, and written that way (RFC 9421 section 4, RFC 9651).

Of the structured fields grammar this reads what a signature needs, in the one spelling a strict serialiser writes
(RFC 9651 section 4.1): one label, components without parameters, the six registered parameters. The text that is
signed is then the text that came, and no two readers can differ about it.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as BinasciiError
from dataclasses import dataclass
from typing import Any, Final

from routeguard.foundation.signatures.models import SignatureError

MAXIMUM_COMPONENTS: Final = 32
_LONGEST: Final = 4096

_KEY: Final = r"[a-z*][a-z0-9_.*-]{0,63}"
_COMPONENT: Final = r'"@?[a-z0-9!#$%&\'*+.^_`|~-]{1,64}"'
_PARAMETER: Final = rf';{_KEY}=(?:[0-9]{{1,15}}|"[\x20\x21\x23-\x5b\x5d-\x7e]{{0,256}}")'
_INPUT: Final = re.compile(
    rf"({_KEY})=(\(((?:{_COMPONENT}(?: {_COMPONENT}){{0,{MAXIMUM_COMPONENTS - 1}}})?)\)((?:{_PARAMETER}){{0,6}}))",
    re.ASCII,
)
_ONE_PARAMETER: Final = re.compile(rf';({_KEY})=([0-9]+|"[^"]*")', re.ASCII)
_SIGNATURE: Final = re.compile(rf"({_KEY})=:([A-Za-z0-9+/]{{86}}==):", re.ASCII)
_INTEGERS: Final = frozenset({"created", "expires"})
_TEXTS: Final = frozenset({"nonce", "alg", "keyid", "tag"})


@dataclass(frozen=True, slots=True)
class Signature:
    """A message signature as it was sent: nothing about it is verified yet.

    `components` are the names covered, in order; `parameters` is the text after the label, which the signature base
    ends with; `value` are the 64 bytes. Times are seconds since the epoch.
    """

    label: str
    components: tuple[str, ...]
    parameters: str
    value: bytes
    created: int | None = None
    expires: int | None = None
    nonce: str | None = None
    alg: str | None = None
    keyid: str | None = None
    tag: str | None = None


def read_signature(signature_input: str, signature: str) -> Signature:
    """Read the two fields of a signed message. Raises SignatureError; linear in their length (attack WH-20).

    Exactly one signature is read. A second label, a component or parameter named twice, an unknown parameter and a
    component with parameters of its own (`;req`, `;bs`, `;key`) are refused.
    """
    if len(signature_input) > _LONGEST or len(signature) > _LONGEST:
        raise SignatureError("the signature's fields are too long")
    match, sent = _INPUT.fullmatch(signature_input), _SIGNATURE.fullmatch(signature)
    if match is None or sent is None:
        raise SignatureError("the signature's fields cannot be read")
    if match[1] != sent[1]:
        raise SignatureError("Signature-Input and Signature speak of different labels")
    components = tuple(name[1:-1] for name in match[3].split(" ")) if match[3] else ()
    if len(set(components)) != len(components):
        raise SignatureError("a component is covered twice")
    return Signature(match[1], components, match[2], _bytes(sent[2]), **_parameters(match[4]))


def _parameters(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in _ONE_PARAMETER.findall(text):
        known = _TEXTS if value.startswith('"') else _INTEGERS
        if name not in known or name in found:
            raise SignatureError("a parameter is unknown, of another type, or there twice")
        found[name] = value[1:-1] if known is _TEXTS else _integer(value)
    return found


def _integer(digits: str) -> int:
    if len(digits) > 1 and digits.startswith("0"):
        raise SignatureError("a number has more than one spelling")
    return int(digits)


def _bytes(text: str) -> bytes:
    try:
        value = b64decode(text, validate=True)
    except BinasciiError:
        raise SignatureError("the signature is not base64") from None
    # The last letter carries four bits that mean nothing: only one spelling is a signature.
    if b64encode(value).decode("ascii") != text:
        raise SignatureError("the signature is not base64 as it is written")
    return value
