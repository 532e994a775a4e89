"""How often a test repeats what only shows in many tries: races, kills, random histories.

A few rounds by default, in the form of the test that has the marker `short`; as many as the threat model asks for in
the form that has the marker `long`, which `.ci/run` runs in place of the short one; and any number by an environment
variable.
"""

from __future__ import annotations

import os

import pytest

_LONG_TIMEOUT = 1800


def rounds(short: int, long: int, *, variable: str | None = None) -> pytest.MarkDecorator:
    """Run a test, which takes `rounds`, with few (marked `short`) or with many (marked `long`).

    `variable` names the environment variable that sets the larger number.
    """
    most = long if variable is None else int(os.environ.get(variable, long))
    marks = [pytest.mark.long, pytest.mark.timeout(_LONG_TIMEOUT)]
    return pytest.mark.parametrize(
        "rounds", [pytest.param(short, id="short", marks=pytest.mark.short), pytest.param(most, id="long", marks=marks)]
    )
