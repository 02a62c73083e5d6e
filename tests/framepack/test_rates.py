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


EXACT = {
    (2, "1.5"): "td_f2k1h16w16f1k1h8w16f1k1h8w8f1k1h4w8f1k1h4w4f1k1_g9",
    (2, "63.5"): "td_f2k1h16w16f1k1h8w16f1k1h8w8f1k1h4w8f1k1h4w4f2k1h2w4f62k1_g9",
    (2, "1/128"): "td_f1k1h16w32_g9",
    (2, "1/4096"): "td_f1k1h128w128_g9",
    (3, "2"): "td_f3k1h54w54f2k1h18w54f2k1h18w18f2k1h6w18f2k1h6w6f2k1h2w6f1k1_g9",
    (4, "1.25"): "td_f1k1h2w8f1k1_g9",
    (5, "0.04"): "td_f1k1h10w10_g9",
    (8, "1"): "td_f1k1_g9",
    (64, "1/64"): "td_f1k1h2w128_g9",
}


@pytest.mark.parametrize(("lam", "rate"), EXACT)
def test_a_rate_has_one_schedule_by_its_digits_in_base_lambda(lam: int, rate: str):
    schedule = schedule_of_rate(rate, lam=lam)
    assert str(schedule) == EXACT[lam, rate]
    assert schedule.rate == Fraction(rate)


@given(st.sampled_from([2, 3, 4, 8]), st.data())
def test_a_rate_of_the_last_term_that_a_kernel_can_have_is_reached_exactly(lam: int, data: st.DataObject):
    most = {2: 12, 3: 6, 4: 6, 8: 4}[lam]
    digits = data.draw(st.integers(0, most))
    rate = Fraction(data.draw(st.integers(1, 8 * lam**digits)), lam**digits)
    assert schedule_of_rate(rate, lam=lam).rate == rate


def test_a_rate_of_other_digits_is_reached_to_the_last_term():
    assert abs(schedule_of_rate("4/3").rate - Fraction(4, 3)) <= Fraction(1, 2 * 2**12)
    assert schedule_of_rate("1.5", lam=3).rate == Fraction(1094, 729)
    assert schedule_of_rate("4/3", lam=4).rate == Fraction(5461, 4096)


def test_a_schedule_of_a_rate_generates_as_many_frames_as_asked():
    assert schedule_of_rate(2, generate=4).generate == 4
    assert schedule_of_rate(2).generate == 9
    assert {group.side for group in schedule_of_rate(2).groups} == {"past"}


@pytest.mark.parametrize(("lam", "value"), [(1, "1"), (65, "65"), (-2, "-2")])
def test_a_lambda_out_of_bounds_is_rejected(lam: int, value: str):
    with pytest.raises(ScheduleError, match=f"got {value}") as caught:
        schedule_of_rate(2, lam=lam)
    assert (caught.value.text, caught.value.at) == (value, 0)


def test_the_bounds_of_rate_and_lambda_are_valid_themselves():
    assert schedule_of_rate(64).rate == 64
    assert schedule_of_rate(1, lam=64).rate == schedule_of_rate(1, lam=2).rate == 1
    assert schedule_of_rate("2." + "0" * 30).rate == 2


def test_a_rate_below_the_smallest_is_rejected_with_the_smallest():
    with pytest.raises(ScheduleError, match="1/4096; got 1/8193") as caught:
        schedule_of_rate("1/8193")
    assert (caught.value.text, caught.value.at) == ("1/8193", 0)


OUT_OF_BOUNDS = [
    "0",
    "-1",
    "1e9",
    "2.2e58885888",
    "1e-58885888",
    "two",
    "1/0",
    "nan",
    "1" * 100,
    "64.01",
    "2." + "0" * 31,
    10**5000,
    None,
]


@pytest.mark.parametrize("bad", OUT_OF_BOUNDS, ids=lambda bad: bad[:9] if isinstance(bad, str) else str(type(bad)))
def test_a_rate_out_of_bounds_is_rejected(bad):
    with pytest.raises(ScheduleError, match="64; got") as caught:
        schedule_of_rate(bad)
    assert caught.value.at == 0
