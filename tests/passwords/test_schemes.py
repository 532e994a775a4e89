from __future__ import annotations

import hashlib
from base64 import b64encode

import argon2
import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.identity.passwords import schemes

PASSWORD = b"correct horse"
SALT = b"NaCl of 16 bytes"


def padded(raw: bytes) -> str:
    return b64encode(raw).decode()


def bare(raw: bytes, *, dots: bool = False) -> str:
    text = padded(raw).rstrip("=")
    return text.replace("+", ".") if dots else text


def scrypt(n: int, r: int, p: int, size: int) -> bytes:
    return hashlib.scrypt(PASSWORD, salt=SALT, n=n, r=r, p=p, dklen=size, maxmem=2**26)


def pbkdf2(name: str, rounds: int, size: int | None = None) -> bytes:
    return hashlib.pbkdf2_hmac(name, PASSWORD, SALT, rounds, size)


def argon(kind: argon2.Type) -> str:
    return argon2.PasswordHasher(1, 64, 1, type=kind).hash(PASSWORD)


BCRYPT = bcrypt.hashpw(PASSWORD, bcrypt.gensalt(4)).decode()
IMPORTED = {
    "argon2id": argon(argon2.Type.ID),
    "argon2i": argon(argon2.Type.I),
    "argon2d": argon(argon2.Type.D),
    "argon2 of Django": "argon2" + argon(argon2.Type.ID),
    "bcrypt 2b": BCRYPT,
    "bcrypt 2a": BCRYPT.replace("$2b$", "$2a$"),
    "bcrypt 2y": BCRYPT.replace("$2b$", "$2y$"),
    "bcrypt of Django": f"bcrypt${BCRYPT}",
    "bcrypt_sha256 of Django": "bcrypt_sha256$"
    + bcrypt.hashpw(hashlib.sha256(PASSWORD).hexdigest().encode(), bcrypt.gensalt(4)).decode(),
    "pbkdf2 of Django": f"pbkdf2_sha256$1000${SALT.decode()}${padded(pbkdf2('sha256', 1000))}",
    "pbkdf2 sha1 of Django": f"pbkdf2_sha1$1000${SALT.decode()}${padded(pbkdf2('sha1', 1000))}",
    "pbkdf2 of passlib": f"$pbkdf2-sha256$1000${bare(SALT, dots=True)}${bare(pbkdf2('sha256', 1000), dots=True)}",
    "pbkdf2 sha512 of passlib": (
        f"$pbkdf2-sha512$1000${bare(SALT, dots=True)}${bare(pbkdf2('sha512', 1000), dots=True)}"
    ),
    "pbkdf2 sha1 of passlib": f"$pbkdf2$1000${bare(SALT, dots=True)}${bare(pbkdf2('sha1', 1000), dots=True)}",
    "scrypt of Django": f"scrypt$1024${SALT.decode()}$8$1${padded(scrypt(1024, 8, 1, 64))}",
    "scrypt of passlib": f"$scrypt$ln=10,r=8,p=1${bare(SALT)}${bare(scrypt(1024, 8, 1, 32))}",
}
# From the documentation of the two projects, so that the forms above are not only our own reading of them.
PUBLISHED = {
    "passlib pbkdf2": (
        "$pbkdf2-sha256$29000$N2YMIWQsBWBMae09x1jrPQ$1t8iyB2A.WF/Z5JZv.lfCIhXXN33N23OSgQYThBYRfk",
        b"toomanysecrets",
    ),
    "passlib scrypt": (
        "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
        b"password",
    ),
    "bcrypt": ("$2a$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe", b"password"),
}


@pytest.mark.parametrize("encoded", IMPORTED.values(), ids=IMPORTED)
def test_imported_hashes_open_with_their_password_only(encoded: str):
    assert schemes.verify(encoded, PASSWORD)
    for wrong in (b"correct hors", b"correct horse ", b"Correct horse", b"", b"x" * 72, b"x" * 4000):
        assert not schemes.verify(encoded, wrong)


@pytest.mark.parametrize(("encoded", "password"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_examples_open(encoded: str, password: bytes):
    assert schemes.verify(encoded, password)
    assert not schemes.verify(encoded, password + b"x")


def test_bcrypt_never_opens_by_its_first_72_bytes():
    """PW-05"""
    first = b"a" * 72
    encoded = bcrypt.hashpw(first, bcrypt.gensalt(4)).decode()
    assert schemes.verify(encoded, first)
    assert not schemes.verify(encoded, first + b"b" * 28)
    assert not schemes.verify(encoded, first + b"c" * 28)


CORRUPT = {
    "empty": "",
    "plain text": "correct horse",
    "hex digest": hashlib.sha256(PASSWORD).hexdigest(),
    "locked account": "!",
    "unusable of Django": "!aBcDeF",
    "asterisk": "*",
    "md5crypt": "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
    # 41 characters are no length base64 can have; other cuts may by chance leave a shorter hash that can be read.
    "argon2 cut": argon(argon2.Type.ID)[:-2],
    "argon2 without hash": "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$",
    "argon2 that takes 4 TB": "$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
    "argon2 that takes years": "$argon2id$v=19$m=64,t=4294967295,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
    # Each factor alone is allowed; together they take minutes.
    "argon2 of 1 GiB and five passes": "$argon2id$v=19$m=1048576,t=5,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
    "argon2 of 1 GiB and 64 passes": "$argon2i$v=19$m=1048576,t=64,p=64$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
    "argon2 of Django, 512 MiB": "argon2$argon2d$v=19$m=524288,t=9,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
    "scrypt of 1 GiB, twice": f"$scrypt$ln=20,r=8,p=2$c2FsdA${bare(b'x' * 32)}",
    "scrypt of 1 GiB, 64 times": f"$scrypt$ln=20,r=8,p=64$c2FsdA${bare(b'x' * 32)}",
    "scrypt of wide blocks": f"scrypt$16384$salt$512$2${padded(b'x' * 64)}",
    "scrypt over 1 GiB": f"$scrypt$ln=20,r=9,p=1$c2FsdA${bare(b'x' * 32)}",
    "pbkdf2 of two blocks": f"pbkdf2_sha256$5000001$salt${padded(b'x' * 33)}",
    "pbkdf2 of four blocks": f"pbkdf2_sha1$9999999$salt${padded(b'x' * 80)}",
    "pbkdf2 of passlib, two blocks": f"$pbkdf2-sha512$9999999$c2FsdA${bare(b'x' * 65)}",
    "argon2 that is not ASCII": "$argon2id$v=19$m=64,t=1,p=1$c2Fsé$AAAA",
    "bcrypt cut": BCRYPT[:-1],
    "bcrypt that takes years": BCRYPT.replace("$04$", "$31$"),
    "bcrypt of cost 3": BCRYPT.replace("$04$", "$03$"),
    "pbkdf2 that takes years": f"pbkdf2_sha256$99999999$salt${padded(b'x' * 32)}",
    "pbkdf2 without rounds": f"pbkdf2_sha256$0$salt${padded(b'x' * 32)}",
    "pbkdf2 of one byte": "$pbkdf2-sha256$1000$c2FsdA$AAAAAAAAAAA",
    "pbkdf2 bad base64": "pbkdf2_sha256$1000$salt$====AAAA",
    "scrypt that takes 1 TB": f"$scrypt$ln=40,r=8,p=1$c2FsdA${bare(b'x' * 32)}",
    "scrypt of no lanes": f"$scrypt$ln=10,r=8,p=0$c2FsdA${bare(b'x' * 32)}",
    "scrypt of an odd cost": f"scrypt$1000$salt$8$1${padded(b'x' * 64)}",
    "scrypt of nothing": f"scrypt$0$salt$8$1${padded(b'x' * 64)}",
    "long": "$argon2id$" + "A" * 5000,
    "NUL": "\x00",
}


@pytest.mark.parametrize("encoded", CORRUPT.values(), ids=CORRUPT)
def test_a_hash_that_cannot_be_read_or_costs_too_much_is_an_error_of_ours(encoded: str):
    """PW-10"""
    with pytest.raises(schemes.HashError):
        schemes.verify(encoded, PASSWORD)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(sorted(IMPORTED.values())))
    at = draw(st.integers(0, len(text) - 1))
    return text[:at] + draw(st.characters()) + text[at + 1 :]


@given(st.text(max_size=80) | damaged())
def test_no_damage_raises_anything_else_or_opens(encoded: str):
    """PW-10"""
    if encoded in IMPORTED.values():
        return
    try:
        opened = schemes.verify(encoded, PASSWORD)
    except schemes.HashError:
        return
    # Prefixes 2a, 2b and 2y mean the same to bcrypt, and base64 has bits nobody reads.
    assert not opened or encoded.startswith(("$2", "bcrypt", "$scrypt", "$pbkdf2", "$argon2", "argon2"))


@pytest.mark.long
def test_scrypt_of_exactly_1_gib_is_checked() -> None:
    """OpenSSL takes no memory limit of 2 GiB, so one of twice the need refused the greatest hash that is allowed."""
    encoded = f"$scrypt$ln=20,r=8,p=1${bare(SALT)}${bare(b'x' * 32)}"
    assert not schemes.verify(encoded, PASSWORD)


@pytest.mark.parametrize(
    ("n", "r", "p"), [(2, 1, 1), (16, 1, 1), (1024, 8, 16), (2**14, 8, 5), (1024, 64, 3), (2, 512, 64)]
)
def test_scrypt_has_the_memory_it_needs(n: int, r: int, p: int) -> None:
    made = hashlib.scrypt(PASSWORD, salt=SALT, n=n, r=r, p=p, dklen=32, maxmem=2**28)
    encoded = f"$scrypt$ln={n.bit_length() - 1},r={r},p={p}${bare(SALT)}${bare(made)}"
    assert schemes.verify(encoded, PASSWORD)
    assert not schemes.verify(encoded, PASSWORD + b"x")
