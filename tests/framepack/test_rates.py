"""Any compression rate as a schedule."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import ScheduleError
from framepack.schedule.grammar import parse
from framepack.schedule.rates import schedule_of_rate, term_kernel
from framepack.units import BASE


def test_two_is_the_series_with_its_last_term_twice():
    assert schedule_of_rate(2).rate == 2
    assert str(schedule_of_rate(2)) == "td_f2k1h16w16f1k1h8w16f1k1h8w8f1k1h4w8f1k1h4w4f1k1h2w4f1k1_g9"


def test_the_papers_example_adds_its_binary_digits():
    two, more = schedule_of_rate(2), schedule_of_rate("2.625")
    assert more.rate == Fraction(21, 8)
    extra = sum(g.num_lat_frames for g in more.past) - sum(g.num_lat_frames for g in two.past)
    assert extra == 2  # 1/2 and 1/8


@given(st.integers(1, 64 * 64))
def test_a_rate_of_64ths_is_reached_exactly(units: int):
    rate = Fraction(units, 64)
    schedule = schedule_of_rate(rate)
    assert schedule.rate == rate
    assert parse(str(schedule)).rate == rate


@pytest.mark.parametrize("lam", [2, 3, 4, 8])
def test_a_term_is_the_power_of_lambda(lam: int):
    for term in range(3):
        assert term_kernel(term, lam).size == BASE.size * lam**term


@pytest.mark.parametrize("bad", ["0", "-1", "1e9", "two", "1/0", "nan", "1" * 100])
def test_what_is_no_rate_is_refused(bad: str):
    with pytest.raises(ScheduleError):
        schedule_of_rate(bad)
