"""Sequences of which many items are consecutive indices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import PlanError
from framepack.planning.indices import (
    MAX_LISTED,
    Runs,
    compact,
    from_data,
    names,
    outside,
    ranges,
    shifted,
    to_data,
)

NUMBERS = st.integers(0, 300)
STRETCHES = st.builds(lambda start, num: range(start, start + num), NUMBERS, st.integers(0, 2 * MAX_LISTED))
ITEMS = st.lists(st.one_of(NUMBERS, STRETCHES, st.none(), st.sampled_from(["key", "end"])), max_size=6)
INDICES = st.lists(st.one_of(NUMBERS, STRETCHES), max_size=6)


def unfolded(items: Sequence[Any]) -> list[Any]:
    return [each for item in items for each in (item if isinstance(item, range) else [item])]


@given(ITEMS)
def test_a_compact_sequence_is_read_as_the_tuple_of_its_items(items: list[Any]):
    found, wanted = compact(items), tuple(unfolded(items))
    assert tuple(found) == wanted
    assert len(found) == len(wanted)
    for place in (*range(-len(wanted), len(wanted)), slice(1, None), slice(None, None, -1)):
        got = found[place]
        assert (tuple(got) if isinstance(place, slice) else got) == (wanted[place])
    assert all(item in found for item in wanted)
    assert "another" not in found


@given(ITEMS)
def test_its_form_is_decided_by_its_items_alone(items: list[Any]):
    found = compact(items)
    again = compact(unfolded(items))
    assert found == again
    assert hash(found) == hash(again)
    assert compact(found) is found or not isinstance(found, range | Runs)


@pytest.mark.parametrize("items", [range(5, 5), range(9, 3), range(90, 5, -1), range(0, 200, 2)], ids=str)
def test_a_range_that_does_not_ascend_by_one_is_a_tuple(items: range):
    assert compact(items) == tuple(items)
    assert [index for run in ranges(compact(items)) for index in run] == list(items)


@given(ITEMS, ITEMS)
def test_two_are_equal_where_their_items_are(one: list[Any], other: list[Any]):
    assert (compact(one) == compact(other)) == (unfolded(one) == unfolded(other))


@given(ITEMS)
def test_its_json_gives_it_back_and_lists_no_long_run(items: list[Any]):
    found = compact(items)
    data = json.loads(json.dumps(to_data(found)))
    assert from_data(data, "An item", 0, slots=True) == found
    assert from_data(unfolded(items), "An item", 0, slots=True) == found, "as earlier versions wrote it"
    if isinstance(data, list):
        assert all(len(run) <= MAX_LISTED for run in ranges([item for item in data if isinstance(item, int)]))


@given(ITEMS)
def test_its_ranges_and_names_are_all_of_its_items_but_none(items: list[Any]):
    found = compact(items)
    assert unfolded(list(ranges(found))) == [item for item in unfolded(items) if isinstance(item, int)]
    assert names(found) == {item for item in unfolded(items) if isinstance(item, str)}


@given(STRETCHES, st.lists(NUMBERS))
def test_outside_leaves_the_others(run: range, indices: list[int]):
    assert outside(run, indices) == compact(sorted(set(run) - set(indices)))


@given(INDICES, st.integers(-500, 500))
def test_shifted_moves_every_index(indices: list[Any], by: int):
    assert shifted(compact(indices), by) == compact([index + by for index in unfolded(indices)])


BAD = [None, "key", 7, [-1], [1.0], [True], ["key"], [None], [[1]], {"start": 0}, [{"start": 0, "stop": -1}]]


@pytest.mark.parametrize("data", BAD, ids=str)
def test_other_data_is_refused(data: object):
    with pytest.raises(PlanError):
        from_data(data, "An item", 0)
