"""Names and texts that somebody else wrote: what cannot be seen is written out, and what their letters need stays."""

from __future__ import annotations

import pytest

from llmbench.shown import legible, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb", "a↵\nb"),
        ("a\tb", "a⇥b"),
        ("\x1b[2J\x07\r", "\\x1b[2J\\x07\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("left\u202eright\u200b", "left\\u202eright\\u200b"),
        ("\ue000\U000e0041", "\\ue000\\U000e0041"),
        ("全角\u3000空白 ☃ 🙂", "全角\u3000空白 ☃ 🙂"),
        ("\\x1b is text", "\\x1b is text"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x07\r\x9b\ud800", "\\x1b[2J\\x07\\r\\x9b\\ud800"),
        ("left\u202eright\u2066", "left\\u202eright\\u2066"),
        ("\u0645\u06cc\u200c\u0634 👩\u200d🚀 20\u00a0%", "\u0645\u06cc\u200c\u0634 👩\u200d🚀 20\u00a0%"),
    ],
)
def test_a_text_of_several_lines_keeps_what_its_letters_need(text: str, shown: str) -> None:
    assert legible(text) == shown
