"""How often a test repeats what only shows in many tries: races, kills, random histories.

A few rounds by default; as many as the threat model asks for in the long form of the test, which has the marker `long`
and is run by `.ci/run`; and any number by an environment variable.
"""

from __future__ import annotations

import os

import pytest

_LONG_TIMEOUT = 1800


def rounds(short: int, long: int, *, variable: str | None = None) -> pytest.MarkDecorator:
    """Run a test, which takes `rounds`, once with few and once, marked `long`, with many.

    `variable` names the environment variable that sets the larger number.
    """
    most = long if variable is None else int(os.environ.get(variable, long))
    marks = [pytest.mark.long, pytest.mark.timeout(_LONG_TIMEOUT)]
    return pytest.mark.parametrize(
        "rounds", [pytest.param(short, id="short"), pytest.param(most, id="long", marks=marks)]
    )
