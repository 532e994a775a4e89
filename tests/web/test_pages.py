"""How pages are made."""

from __future__ import annotations

import re

import pytest

from routeguard.foundation.web.pages import unbroken


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Your e-mail address", 'Your <span class="unbroken">e-mail</span> address'),
        ("E-mail", '<span class="unbroken">E-mail</span>'),
        ("<b>e-mail</b> & 'more'", '&lt;b&gt;<span class="unbroken">e-mail</span>&lt;/b&gt; &amp; &#39;more&#39;'),
        ("", ""),
    ],
)
def test_a_word_with_a_hyphen_stays_whole_and_everything_is_escaped(text: str, html: str) -> None:
    assert str(unbroken(text)) == html
    # People and their search find the same words.
    assert re.sub("<[^>]*>", "", unbroken(text)).replace("&lt;", "<").count("e-mail") == text.count("e-mail")
