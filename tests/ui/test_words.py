"""What pages say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from routeguard.core.problem import NOT_FOUND, VALIDATION_FAILED, ProblemType
from routeguard.identity.ui.words import FormError, ago, device, explain, form_errors, notice, wait


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19 Mobile/15E148 Safari/604.1",
            "Safari on iPhone",
        ),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
            "Chrome on macOS",
        ),
        ("curl/8.5.0", "curl"),
        ("python-httpx/0.28", "A Python program"),
        ("", "Unknown device"),
        (None, "Unknown device"),
        ("\x1b[31mred\u202e", "[31mred"),
    ],
)
def test_a_browser_in_words(agent: str | None, words: str) -> None:
    assert device(agent) == words


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=59), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=5), "5 hours ago"),
        (timedelta(days=40), "40 days ago"),
    ],
)
def test_a_time_in_words(passed: timedelta, words: str) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert ago(now - passed, now) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "2 minutes"),
        (120, "2 minutes"),
        (121, "3 minutes"),
        (3600, "60 minutes"),
        (3601, "2 hours"),
        (90_000, "25 hours"),
    ],
)
def test_a_wait_in_words_is_never_too_short(seconds: int, words: str) -> None:
    assert wait(seconds) == words
    told = ProblemType("quota-exceeded", 429, "T")(headers=(("Retry-After", str(seconds)),))
    assert explain(told) == f"Too many tries. Try again in {words}."


@pytest.mark.parametrize("headers", [(), (("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),), (("x", "5"),)])
def test_a_wait_that_is_not_known_is_not_named(headers: tuple[tuple[str, str], ...]) -> None:
    assert explain(ProblemType("quota-exceeded", 429, "T")(headers=headers)) == "Too many tries. Try again later."


def test_notices_are_ours_and_not_the_address_lines() -> None:
    assert notice("signed-out") == "You are signed out."
    assert notice("<b>Call 555</b>") == ""
    assert notice(None) == ""


def test_errors_stand_beside_their_fields() -> None:
    problem = VALIDATION_FAILED(
        errors=[
            {"pointer": "/email", "detail": "This field is required."},
            {"pointer": "/password", "detail": "use at least 8 characters"},
            {"pointer": "/name", "detail": "Expected `str`, got `int`."},
            {"pointer": "/other", "detail": "Odd"},
        ]
    )
    assert form_errors(problem, ("email", "password", "name")) == [
        FormError("Enter your e-mail address.", "email"),
        FormError("Use at least 8 characters.", "password"),
        FormError("Check your name.", "name"),
        FormError("Odd.", ""),
    ]


def test_a_refusal_without_fields_is_one_sentence() -> None:
    assert form_errors(NOT_FOUND(), ("email",)) == [FormError("There is nothing here, or nothing that is yours.")]
    assert explain(ProblemType("x", 409, "Title")()) == "Title"
