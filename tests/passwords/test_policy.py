from __future__ import annotations

import pytest

from routeguard.core.errors import ConfigError, ProblemError
from routeguard.passwords.models import PasswordSettings
from routeguard.passwords.policy import PasswordPolicy, common_passwords, normalize
from tests.steady import work_within

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
    "zqvjkwxy", "ZQVJKWXY", "84150396", "        x", "correct horse battery staple",
    "пароль-из-слов", "日本語のパスワード", "🦆🦆🦢🦆🦢🦢🦆🦢",
    "'; DROP TABLE users; --", "<script>alert(1)</script>", "%00%0a{{7*7}}",
    "\t\ttabbed\t\t", "x" * 500 + "y" * 500,
]  # fmt: skip


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
    "password", "PassWord", "12345678", "qwertyuiop", "iloveyou", "password1", "sunshine", "P@ssw0rd", "letmein1",
    "football", "aaaaaaaa", "87654321", "abcdefgh", "Password123", "dragon123", "ｐａｓｓｗｏｒｄ",
]  # fmt: skip


@pytest.mark.parametrize("password", FIRST_TRIED)
def test_what_everybody_tries_first_is_refused(password: str):
    assert reasons(password) == ["common"]


def test_the_list_is_long_enough():
    """ASVS v5.0.0-6.2.4"""
    assert len(common_passwords()) >= 3000
    assert all(len(password) >= 8 and password == password.casefold() for password in common_passwords())


OWN_WORDS = [
    "ada.lovelace", "Lovelace1815", "lovelace!!", "acme-rockets", "RocketsRockets", "routeguard1",
    "ada.lovelace@example.com", "lovelace.ada",
]  # fmt: skip


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
