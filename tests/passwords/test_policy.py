from __future__ import annotations

import random
import string
from importlib.resources import files

import pytest

from routeguard.cli.accounts import new_password
from routeguard.core.errors import ConfigError, ProblemError
from routeguard.identity.passwords.common import _holds, _lists, common_passwords, is_common
from routeguard.identity.passwords.models import PasswordSettings
from routeguard.identity.passwords.policy import PasswordPolicy, normalize
from tests.steady import work_within

COVERS = ("identity/passwords/common",)

SETTINGS = PasswordSettings()
POLICY = PasswordPolicy(SETTINGS, words=("id.acme-rockets.example",))


def reasons(password: str, *context: str) -> list[str]:
    try:
        POLICY.check(normalize(password, SETTINGS), context=context)
    except ProblemError as error:
        found: list[str] = error.problem.members["reasons"]
        return found
    return []


def test_a_refusal_names_the_field_and_every_reason():
    with pytest.raises(ProblemError) as refused:
        POLICY.check("lovelac", context=["lovelac@example.com"], field="new_password")
    problem = refused.value.problem
    assert (problem.status, problem.type.code) == (422, "password-rejected")
    assert problem.members["reasons"] == ["too-short", "contextual"]
    assert [error["pointer"] for error in problem.members["errors"]] == ["/new_password"] * 2
    assert "lovelac" not in str(problem.body())


WELCOME = [
    "zqvjkwxy",
    "ZQVJKWXY",
    "84150396",
    "        x",
    "correct horse battery staple",
    "пароль-из-слов",
    "日本語のパスワード",
    "🦆🦆🦢🦆🦢🦢🦆🦢",
    "'; DROP TABLE users; --",
    "<script>alert(1)</script>",
    "%00%0a{{7*7}}",
    "\t\ttabbed\t\t",
    "x" * 500 + "y" * 500,
]


@pytest.mark.parametrize("password", WELCOME)
def test_any_characters_and_no_composition(password: str):
    """PW-08"""
    assert reasons(password) == []


def test_settings_know_no_rule_of_composition_expiry_or_hint():
    """PW-08"""
    names = " ".join(PasswordSettings.__dataclass_fields__)
    assert not any(
        word in names for word in ("digit", "upper", "symbol", "special", "expire", "max_age", "hint", "history")
    )


def test_seven_are_too_few_and_eight_enough():
    assert reasons("zqvjkwx") == ["too-short"]
    assert reasons("zqvjkwxy") == []
    assert reasons("") == ["too-short"]


def test_characters_are_counted_after_normalisation():
    assert reasons("e\u0301" * 4) == ["too-short"]
    assert reasons("ﷺ") == []


FIRST_TRIED = [
    "password",
    "PassWord",
    "12345678",
    "qwertyuiop",
    "iloveyou",
    "password1",
    "sunshine",
    "P@ssw0rd",
    "letmein1",
    "football",
    "aaaaaaaa",
    "87654321",
    "abcdefgh",
    "Password123",
    "dragon123",
    "ｐａｓｓｗｏｒｄ",
]


@pytest.mark.parametrize("password", FIRST_TRIED)
def test_what_everybody_tries_first_is_refused(password: str):
    assert reasons(password) == ["common"]


def test_the_list_is_long_enough_and_small_enough_to_ship():
    """ASVS v5.0.0-6.2.4"""
    assert len(common_passwords()) == 100_000
    assert all(len(password) >= 8 and password == password.casefold() for password in common_passwords())
    assert files("routeguard.identity.passwords").joinpath("common.bin").stat().st_size < 500_000  # type: ignore[attr-defined]


def test_every_password_of_the_list_is_found_and_nothing_beside_it():
    every = sorted(common_passwords())
    assert all(is_common(password) for password in (*every[::97], every[0], every[-1]))
    passwords, words = _lists()
    for lines in (passwords, words):
        assert lines.split(b"\n") == sorted(set(lines.split(b"\n")))
    assert not _holds(passwords, b"")
    assert not _holds(passwords, every[0].encode()[:-1] + b"\x00")
    assert not _holds(passwords, b"\xff")


MADE_OF_THEM = [
    "Summer2024",
    "Admin@123",
    "qwe123456",
    "Password1!",
    "P@$$w0rd",
    "Welcome2024!",
    "Qwerty123!",
    "Winter2023!",
    "Company123",
    "Changeme1!",
    "Letmein123!",
    "iloveyou2",
    "abcd1234!",
    "Passw0rd123",
    "Test@1234",
    "Abc@12345",
    "Pass@word1",
    "Football2024",
    "Hello123",
    "Monday123!",
    "January2024!",
    "Spring2025!",
    "Liverpool1",
    "Chelsea123!",
    "Michael1985",
    "charlie2010",
    "qwerty!@#$",
    "1q2w3e4r5t!",
    "Zaq1@wsx",
    "!QAZ2wsx",
    "!QAZxsw2",
    "qazWSX123",
    "asdfASDF",
    "aaaaaaaA",
    "11111111a",
    "password!",
    "drowssap1",
    "pa55word",
    "pa$$word123",
    "trustno1!",
    "superman123",
    "batman2024",
    "Pokemon123",
    "StarWars1977",
    "Jesus123!",
    "God12345",
    "America1776",
    "London2012",
    "Manchester1",
    "Arsenal123",
    "Barcelona1",
    "123456Aa",
    "Aa123456",
    "Aa123456!",
    "Aa@123456",
    "a123456789",
    "A1b2c3d4",
    "abc123456",
    "1234abcd",
    "1234qwer!",
    "qwer1234!",
    "zxcv1234",
    "123qwe!@#",
    "root1234",
    "toor1234",
    "admin2024!",
    "administrator1",
    "guest1234",
    "user12345",
    "login123!",
    "master123!",
    "secret123",
    "secret2024",
    "Summer2024!",
    "Summer@2024",
    "Autumn2023",
    "Password2024",
    "Password123!",
    "P@ssw0rd123",
    "P@ssword1",
    "Passw0rd!",
    "p4ssw0rd",
    "Pa$$w0rd1",
    "Welcome1",
    "Welcome123",
    "Welcome@123",
    "welcome01",
    "Adm1n123",
    "adm1nistr4tor",
    "Admin1234",
    "admin123456",
    "Admin!23",
    "letmein!",
    "l3tm31n1",
    "monkey123!",
    "dragon2023",
    "iloveyou!",
    "iloveyou123",
    "iloveu2!",
    "12345678a",
    "123456789a",
    "a12345678",
    "1qaz@WSX",
    "1qaz2wsx!",
    "qwertyuiop1",
    "qwerty12345",
    "Qwerty1!",
    "qwerty2024",
    "asdfghjkl1",
    "zxcvbnm123",
    "1q2w3e4r",
    "qazwsxedc",
    "q1w2e3r4",
    "abcdefg1",
    "abc12345",
    "abcabc123",
    "passpass",
    "passwordpassword",
    "123123123",
    "11112222",
    "12344321",
    "01011990",
    "19900101",
    "31121999",
    "2024-01-01",
    "01/01/2000",
    "20202020",
    "20242024",
    "19841984",
    "December2024",
    "Freitag2024",
    "Sommer2024!",
    "Passwort1",
    "passwort123!",
    "motdepasse1",
    "contraseña1",
    "Hallo123!",
    "bonjour1",
    "Soleil123",
    "azertyuiop",
    "Azerty123",
    "azerty12",
    "qwertz123",
    "Jennifer1!",
    "ashley2005",
    "jordan23!",
    "michelle1",
    "Nicole123!",
    "princess1!",
    "sunshine1!",
    "Flower123!",
    "butterfly1",
    "chocolate1",
    "computer1!",
    "internet1",
    "Samsung123",
    "Google123!",
    "Facebook1",
    "Linkedin1",
    "baseball1!",
    "soccer10!",
    "yankees1",
    "cowboys1!",
    "Spiderman1",
    "pikachu123",
    "minecraft1",
    "fortnite123",
    "Tr0ub4dor&3",
    "Test1234!",
    "Testing123",
    "Temp1234!",
    "Default1!",
    "Service1!",
    "Server2019",
    "Office365!",
    "Company2024!",
    "Corona2020",
    "Covid19!",
    "Love1234",
    "baby1234",
    "angel123",
    "!@#$%^&*",
    "qwe!@#123",
    "1qazxsw2",
    "zaqxsw123",
    "147258369",
    "789456123",
    "159357258",
    "poiuytrewq",
    "mnbvcxz1",
    "asdfjkl;",
    "qweasdzxc",
    "1a2b3c4d",
    "aaaa1111",
    "abcd4321",
    "zzzzzzzz",
    "1111aaaa",
    "P4$$w0rd!",
    "w3lc0me1",
    "s3cr3t123",
    "c0mputer!",
    "5umm3r2024",
]


@pytest.mark.parametrize("password", MADE_OF_THEM)
def test_what_is_made_of_common_words_is_common(password: str):
    assert reasons(password) == ["common"]


def test_generated_passwords_are_not_taken_for_common_ones():
    """One thousand of each kind: with a fixed seed, so that it is the same thousand each time."""
    chance = random.Random(8)
    words = [word for word in _lists()[1].decode().split("\n") if word.isalpha() and word.isascii() and len(word) > 3]
    letters = string.ascii_letters + string.digits
    kinds = {
        "four words": lambda: "-".join(chance.choices(words, k=4)),
        "three words": lambda: " ".join(chance.choices(words, k=3)),
        "ten letters": lambda: "".join(chance.choices(letters, k=10)),
        "ten signs": lambda: "".join(chance.choices(string.printable[:94], k=10)),
        "sixteen digits": lambda: "".join(chance.choices(string.digits, k=16)),
        "ours": new_password,
    }
    refused = {kind: sum(is_common(make().casefold()) for _ in range(1000)) for kind, make in kinds.items()}
    # A word may be a run ("aaaa"), and signs may happen to stand around one: one in a thousand.
    assert {kind: count for kind, count in refused.items() if count > 2} == {}
    assert sum(refused.values()) <= 4


@pytest.mark.parametrize(
    "password",
    [
        "dragon eats monkey",
        "summer-lantern-2024",
        "my first password was short",
        "tractor wobble 17",
        "iloveyou and everybody else",
        "p@ssw0rd of the wolf",
        "1q2w3e is a walk",
        "Zx9!kLq2",
    ],
)
def test_a_common_word_among_others_is_welcome(password: str):
    assert reasons(password) == []


OWN_WORDS = [
    "ada.lovelace",
    "Lovelace1815",
    "lovelace!!",
    "acme-rockets",
    "RocketsRockets",
    "routeguard1",
    "ada.lovelace@example.com",
    "lovelace.ada",
    "L0vel@ce!",
    "ecalevol99",
    "4cm3-r0ck3ts",
]


@pytest.mark.parametrize("password", OWN_WORDS)
def test_the_users_own_words_and_the_services_name_are_refused(password: str):
    assert reasons(password, "ada.lovelace@example.com", "Ada Lovelace") == ["contextual"]


@pytest.mark.parametrize("password", ["lovelace likes looms", "my rockets fly far", "alice-password-1"])
def test_a_phrase_may_hold_such_a_word(password: str):
    assert reasons(password, "ada.lovelace@example.com", "Alice") == []


def test_judging_costs_little_whatever_is_sent():
    """PW-15"""
    name = " ".join(f"word{n}" for n in range(20_000))
    with work_within(1):
        for password in ("a" * 1024, "ada" * 341, "aA1" * 341, "\u0301" * 1024, "ﷺ" * 1024):
            reasons(password, "a" * 100_000 + "@example.com", "ada" * 100_000, name)


@pytest.mark.parametrize("position", [0, 1, 5, -1])
def test_nul_is_422_wherever_it_stands(position: int):
    """PW-04"""
    letters = list("seven grey herons")
    letters.insert(position if position >= 0 else len(letters), "\x00")
    with pytest.raises(ProblemError) as refused:
        normalize("".join(letters), SETTINGS)
    assert refused.value.problem.status == 422


def test_half_a_surrogate_pair_is_422():
    with pytest.raises(ProblemError) as refused:
        normalize("seven grey \ud83e herons", SETTINGS)
    assert refused.value.problem.status == 422


@pytest.mark.parametrize("size", [1025, 1_000_000, 64_000_000])
def test_a_huge_password_is_refused_at_once(size: int):
    """PW-02"""
    password = "ﷺ" * size
    with work_within(0.5), pytest.raises(ProblemError) as refused:
        normalize(password, SETTINGS)
    assert refused.value.problem.members["reasons"] == ["too-long"]


def test_one_text_is_one_password_however_it_is_typed():
    """PW-03"""
    forms = ["caf\u00e9 ﬁsh №5", "cafe\u0301 ﬁsh №5", "cafe\u0301 fish No5"]
    assert len({normalize(form, SETTINGS) for form in forms}) == 1


@pytest.mark.parametrize(
    "bad",
    [{"minimum_length": 7}, {"maximum_length": 63}, {"time_cost": 0}, {"memory": 1}, {"queue": 0}, {"workers": -1}],
)
def test_settings_that_would_weaken_are_refused(bad: dict[str, int]):
    with pytest.raises(ConfigError):
        PasswordSettings(**bad)  # type: ignore[arg-type]
