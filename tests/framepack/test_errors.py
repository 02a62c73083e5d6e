"""Errors: every message prints, whatever the user's text holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import MAX_MESSAGE, FramePackError, PlanError, ScheduleError, quoted

CHARACTERS = st.characters(exclude_categories=())  # lone surrogates included


@given(st.text(CHARACTERS, max_size=200))
def test_every_message_prints_in_utf_8(text: str):
    for fault in (PlanError(f"got {text}"), ScheduleError(text, len(text) // 2, text, text)):
        str(fault).encode()
        assert all(c.isprintable() or c == "\n" for c in str(fault))


def test_a_message_is_bounded():
    assert len(str(FramePackError("x" * 10**6))) == MAX_MESSAGE
    assert len(str(FramePackError("\ud800" * 10**6))) == MAX_MESSAGE


def test_a_message_keeps_what_prints():
    assert str(FramePackError("外 é\nb")) == "外 é\nb"
    assert str(FramePackError("a\x1b[31m\ud800\u202eb")) == "a\\x1b[31m\\ud800\\u202eb"


@pytest.mark.parametrize(
    "value", [10**400, 10**5000, float("nan"), "\ud800" * 500, [[10**5000]] * 50, {"a": "b" * 999}], ids=type
)
def test_any_value_is_quoted_in_a_hundred_printable_characters(value):
    assert len(quoted(value)) <= 100
    assert quoted(value).isprintable()
