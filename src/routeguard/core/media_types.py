"""Media types as RFC 9110 section 8.3 writes them; what is not of its grammar, readers take for different types."""

from __future__ import annotations

import re
from typing import Final

WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
PARAMETER: Final = rf'({WORD})=({WORD}|"[^"\\\x00-\x08\x0a-\x1f\x7f]*")'
"""A name and its value, as two groups. Quoted values without backslashes only: none is needed here."""
# Possessive throughout: a blank belongs to one group only, or `a/b;  ;  ;  !` takes time exponential in its length
# before the caller is identified (attack INJ-04).
PARAMETERS: Final = rf"(?:[ \t]*+;(?:[ \t]*+{PARAMETER})?+)*+"
"""Any number of them, each after a semicolon; one may be empty (section 5.6.6)."""

_PARAMETERS: Final = re.compile(PARAMETERS, re.ASCII)


def are_parameters(text: str) -> bool:
    """Whether what follows a type and subtype is nothing but parameters, each with a name and a value."""
    return _PARAMETERS.fullmatch(text) is not None
