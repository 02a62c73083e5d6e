"""The drift monitor's rule: which sections leave the band of those before, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import FramePackError
from framepack.metrics.monitor import MEASURES, Drift, advice, drifts

SLACK = MEASURES["contrast"][1]


def look(contrast: float = 10.0, colour: float = 50.0, motion: float | None = 1.0) -> dict[str, Any]:
    return {"colour": [colour, 0.0, 0.0], "contrast": contrast, "sharpness": 5.0, "motion": motion}


def sections(*looks: dict[str, Any] | None) -> list[Any]:
    return [None if own is None else {"own": own, "start": look()} for own in looks]


def of(name: str, found: list[Drift]) -> Drift:
    return next(drift for drift in found if drift.name == name)


def test_values_are_changes_against_the_start_and_motion_against_the_first_section():
    found = drifts(sections(look(motion=2.0), look(contrast=12.0, colour=53.0, motion=3.0)))
    assert of("contrast", found).values == pytest.approx((0.0, 0.2))
    assert of("colour", found).values == pytest.approx((0.0, 3.0))
    assert of("motion", found).values == pytest.approx((0.0, 0.5))


def test_a_third_section_outside_the_range_of_the_first_two_and_the_slack_is_flagged():
    inside, outside = 1 + 0.9 * SLACK, 1 + 1.1 * SLACK
    assert of("contrast", drifts(sections(look(), look(), look(10 * inside)))).flagged == []
    assert of("contrast", drifts(sections(look(), look(), look(10 * outside)))).flagged == [2]
    assert of("contrast", drifts(sections(look(), look(10 * outside)))).flagged == []  # two sections make no band


def test_a_section_without_a_value_is_neither_flagged_nor_part_of_a_band():
    found = of("motion", drifts(sections(look(), look(motion=None), None, look(motion=9.0), look(motion=9.0))))
    assert found.values[1:3] == (None, None)
    assert found.bands[:4] == (None, None, None, None)
    assert found.flagged == []


@given(st.lists(st.floats(1.0, 100.0), min_size=3, max_size=12))
def test_a_flagged_section_is_farther_than_the_slack_from_every_section_before_it(contrasts: list[float]):
    found = of("contrast", drifts(sections(*map(look, contrasts))))
    for index, value in enumerate(found.values):
        far = all(abs(value - before) > SLACK for before in found.values[:index])
        beyond = not min(found.values[:index], default=value) <= value <= max(found.values[:index], default=value)
        assert (index in found.flagged) == (index >= 2 and far and beyond)


def test_the_advice_names_sections_from_1_their_measures_and_both_remedies():
    said = advice(drifts(sections(look(), look(), look(contrast=20.0, colour=80.0))))
    assert "section 3 in colour, contrast" in said
    assert "another take" in said
    assert "FramePack Repair" in said
    assert "No section leaves" in advice(drifts(sections(look(), look(), look())))


@pytest.mark.parametrize("looks", [[], "text", [None], [{"own": {"colour": [1, 2]}}], [{"own": look(float("nan"))}]])
def test_what_is_no_list_of_looks_is_rejected(looks: Any):
    with pytest.raises(FramePackError):
        drifts(looks)
