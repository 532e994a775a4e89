"""What the pages say: notices by code, problems as sentences beside their fields, browsers and times in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from routeguard.core.problem import Problem

NOTICES: Final = {
    "signed-up": "We have sent you an e-mail. Open the link in it to confirm your address, then sign in.",
    "signed-out": "You are signed out.",
    "sent": "If there is an account with this address, a link is on its way to it.",
    "password-reset": "Your password is changed. Sign in with the new one.",
    "password-changed": "Your password is changed.",
    "email-verified": "Thank you, your e-mail address is confirmed.",
    "email-change-sent": "We sent a link to the new address. Open it to finish the change.",
    "session-ended": "That session is ended.",
    "name-changed": "Your name is changed.",
}
"""Pages show these by code and never a text from the address: a link cannot put text of its own on a page."""

TOO_MANY: Final = 429
_LABELS: Final = {
    "email": "e-mail address",
    "password": "password",
    "current_password": "current password",
    "new_password": "new password",
    "name": "name",
    "token": "link from our mail",
}
_PLAIN: Final = {
    "invalid-credentials": "The e-mail address or the password is not right.",
    "link-expired": "This link was used already or is too old. Ask for a new one.",
    "quota-exceeded": "Too many tries. Try again later.",
    "temporarily-unavailable": "We cannot answer just now. Try again in a moment.",
    "authentication-required": "Sign in first.",
    "permission-denied": "You are signed in, but this page is not for your account.",
    "not-found": "There is nothing here, or nothing that is yours.",
    "forgery-suspected": "The request did not come from our own page. Go back, reload it and try again.",
}


@dataclass(frozen=True, slots=True)
class FormError:
    """One sentence, and the id of the field it is about ('' when about the whole form)."""

    message: str
    field: str = ""


def notice(code: str | None) -> str:
    """Return the notice with this code, or ''."""
    return NOTICES.get(code or "", "")


def explain(problem: Problem) -> str:
    """Return a refusal as a sentence for people."""
    if problem.status == TOO_MANY:
        seconds = next((value for name, value in problem.headers if name.lower() == "retry-after"), "")
        if seconds.isascii() and seconds.isdigit():
            return f"Too many tries. Try again in {wait(int(seconds))}."
    return _PLAIN.get(problem.type.code) or problem.detail or problem.type.title


def form_errors(problem: Problem, fields: tuple[str, ...], *, proof: str = "") -> list[FormError]:
    """Return a refusal as sentences beside the fields of a form. Never holds what was typed.

    `proof` is the field in which a signed-in user repeats the password.
    """
    listed = problem.members.get("errors")
    if isinstance(listed, list) and listed:
        return [_field_error(str(item["pointer"])[1:], str(item["detail"]), fields) for item in listed]
    if problem.type.code == "invalid-credentials" and proof:
        return [FormError("This is not your current password.", proof)]
    return [FormError(explain(problem))]


def _field_error(name: str, detail: str, fields: tuple[str, ...]) -> FormError:
    label = _LABELS.get(name, name.replace("_", " "))
    field = name if name in fields else ""
    # Sentences made for programs get words a person can act on; slices' own sentences are good as they are.
    if detail.startswith(("This field is required", "Expected `str` of length >=")):
        return FormError(f"Enter your {label}.", field)
    if detail.startswith(("Expected", "This value")):
        return FormError(f"Check your {label}.", field)
    if detail.startswith("This is not an e-mail"):
        return FormError("Enter an e-mail address, such as name@example.com.", field)
    return FormError(_sentence(detail), field)


def _sentence(text: str) -> str:
    text = text.strip()
    return (text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")) if text else ""


_BROWSERS: Final = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("python", "a Python program"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


def device(user_agent: str | None) -> str:
    """Return a User-Agent as people say it: 'Firefox on Linux'. A hint for its owner; nothing is decided by it."""
    agent = user_agent or ""
    browser = next((words for mark, words in _BROWSERS if mark.lower() in agent.lower()), None)
    system = next((words for mark, words in _SYSTEMS if mark in agent), None)
    if browser and system:
        return f"{browser} on {system}"
    if browser or system:
        return (browser or f"A browser on {system}").replace("a Python", "A Python")
    cleaned = re.sub(r"[^\x20-\x7e]", "", agent)[:40]
    return cleaned or "Unknown device"


def wait(seconds: int) -> str:
    """Return a time to wait in words, never shorter than it is: 90 seconds are two minutes."""
    for size, name in ((3_600, "hour"), (60, "minute")):
        if seconds > size:
            return f"{-(-seconds // size)} {name}s"
    return "1 second" if seconds <= 1 else f"{seconds} seconds"


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago something was, in words."""
    seconds = max(0, int((now - moment).total_seconds()))
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        count = seconds // size
        if count:
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "just now"
