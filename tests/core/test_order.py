from __future__ import annotations

import pytest

from routeguard.core.order import in_order


@pytest.mark.parametrize(
    ("names", "needs", "ordered"),
    [
        ("cab", {}, "cab"),
        ("cab", {"c": "b"}, "abc"),
        ("abc", {"a": "bc", "b": "c"}, "cba"),
        ("abcd", {"a": "d"}, "bcda"),
        ("ab", {"a": "x"}, "ab"),
        ("", {}, ""),
    ],
)
def test_what_needs_something_comes_after_it_and_the_rest_stays(
    names: str, needs: dict[str, str], ordered: str
) -> None:
    assert in_order(list(names), needs) == (list(ordered), [])


def test_a_cycle_is_named_and_what_is_free_of_it_is_in_order() -> None:
    # d only needs one of the cycle, and a needs nothing.
    assert in_order(list("dabc"), {"d": "b", "b": "c", "c": "b"}) == (["a"], ["b", "c", "b"])
    assert in_order(["a"], {"a": "a"}) == ([], ["a", "a"])
