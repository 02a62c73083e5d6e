"""The grammar of schedule strings."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack.errors import FramePackError, ScheduleError
from framepack.schedule.grammar import Group, Schedule, count_tokens, parse
from framepack.schedule.presets import PRESETS, resolve
from framepack.units import Kernel
from tests.growth import growth
from tests.names import ENDPOINT, INVERTED, TABLE_1, VANILLA


def groups(side: str):
    kernel = st.one_of(
        st.integers(1, 16).map(Kernel.short),
        st.builds(
            Kernel, st.integers(1, 16), st.integers(1, 16).map(lambda n: 2 * n), st.integers(1, 8).map(lambda n: 2 * n)
        ),
    )
    group = st.builds(lambda n, k: Group(num_lat_frames=n, kernel=k, side=side), st.integers(1, 64), kernel)
    return st.lists(group, min_size=1, max_size=5).map(tuple)


def build(order: str, near, far, generate: int, tail: str) -> Schedule:
    names = {
        "vanilla": {"past": near},
        "pinned": {"past": near, "far_past": far},
        "endpoint": {
            "past": near,
            "far_future": tuple(Group(num_lat_frames=g.num_lat_frames, kernel=g.kernel, side="future") for g in far),
        },
        "inverted": {
            "far_past": far,
            "future": tuple(Group(num_lat_frames=g.num_lat_frames, kernel=g.kernel, side="future") for g in near),
        },
    }
    return Schedule(generate=generate, tail=tail, **names[order])


SCHEDULES = st.builds(
    build,
    st.sampled_from(["vanilla", "pinned", "endpoint", "inverted"]),
    groups("past"),
    groups("past"),
    st.integers(1, 64),
    st.sampled_from(["td", "ta", "tc"]),
)


@given(SCHEDULES)
def test_str_is_the_canonical_form(schedule: Schedule):
    assert parse(str(schedule)) == schedule
    assert str(parse(str(schedule))) == str(schedule)


@pytest.mark.parametrize("name", TABLE_1)
def test_every_name_of_table_1_is_its_own_canonical_form(name: str):
    assert str(parse(name)) == name


@pytest.mark.parametrize(
    ("names", "order"),
    [(VANILLA, "vanilla"), (ENDPOINT, "endpoint"), (INVERTED, "inverted")],
    ids=lambda v: str(v)[:8],
)
def test_the_order_follows_from_the_shape(names, order):
    assert {parse(name).order for name in names} == {order}


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("f1k1_x_g9_f1k1f2k2f16k4", "f1k1_x_g9_f1k1f2k2f16k4_td"),
        ("f16k4h8w8f1k1h2w2_g9", "td_f16k4f1k1_g9"),
        ("  td_f1k1_g9\n", "td_f1k1_g9"),
        ("td_f01k1_g009", "td_f1k1_g9"),
    ],
)
def test_different_spellings_are_equal(spelling: str, canonical: str):
    assert parse(spelling) == parse(canonical)
    assert str(parse(spelling)) == canonical


def test_tokens_at_480p_are_the_papers():
    tokens = count_tokens(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), 60, 104)
    assert tokens.groups == (1560, 1560, 390, 416)
    assert tokens.context == 3926
    assert tokens.generated == 9 * 1560


def test_a_number_of_many_digits_is_named_by_their_count():
    for digits, shown in (("9" * 12, "got 999999999999."), ("9" * 13, "got a number of 13 digits.")):
        with pytest.raises(ScheduleError) as caught:
            parse(f"f{digits}k1_g9")
        assert shown in caught.value.fault


def test_a_preset_has_a_name_that_stands_for_its_schedule():
    assert len(PRESETS) == 8
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert resolve(f" {name} ") == parse(preset.text)
    assert str(resolve("f1k1_g9")) == "td_f1k1_g9"
    with pytest.raises(ScheduleError):
        resolve("unknown")


def test_tail_tokens():
    ta, tc = (count_tokens(parse(f"{tail}_f16k4f2k2f1k1_g9"), 60, 104) for tail in ("ta", "tc"))
    assert ta.tail == 1  # ceil(ceil(60 / 32) / 8) * ceil(ceil(104 / 32) / 8), of one frame
    assert tc.tail == 8 * 13
    assert ta.context == tc.context == 1560 + 390 + 416


BAD = {
    "": ("", 0),
    "f1k1": ("", 4),
    "g9": ("", 0),
    "td_f1k1_g9_g9": ("", 11),
    "f1k0_g9": ("got 0", 3),
    "f1000000000k1_g9": ("1000000000", 1),
    "f1k1_td_g9": ("", 5),
    "td_f1k1_g9_tc": ("", 11),
    "f1k1_g9+x": ("+x", 7),
    "f1k1_g9+e": ("+e", 7),
    "td_f1k1_g9+": ("'+'", 10),
    "f1k1h3w4_g9": ("got 3", 5),
    "f1k1_g9_f2": ("'f2'", 8),
    "F1K1_G9": ("'F1K1'", 0),
    "f1k1__g9": ("", 5),
    "f1k1_g9 x": ("' '", 7),
    "ф1k1_g9": ("U+0444", 0),
    "x_g9_f1k1": ("", 0),
    "ta_f1k1_x_g9_f1k1f2k2f16k4": ("ta", 0),
    "f1k1_g9_tc": ("tc", 8),
    "f1k1" * 124 + "_g9": ("502", 499),
}


@pytest.mark.parametrize("text", BAD)
def test_a_fault_is_shown_with_a_caret_and_a_remedy(text: str):
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    value, at = BAD[text]
    fault = caught.value
    assert value in fault.fault
    assert fault.at == at
    lines = str(fault).splitlines()
    assert lines[2].index("^") == 2 + min(at, 72)
    assert fault.remedy and lines[-1] == fault.remedy


@pytest.mark.parametrize("value", [17, None, ["g9"], float("nan"), 10**5000], ids=type)
def test_a_schedule_that_is_no_text_is_rejected(value):
    with pytest.raises(ScheduleError):
        parse(value)


def test_a_schedule_that_parses_still_parses_in_its_canonical_form():
    longest = "f1k1" * 123 + "_g9"
    assert len(longest) == 495
    canonical = str(parse(longest))
    assert str(parse(canonical)) == canonical
    with pytest.raises(FramePackError, match="502"):
        replace(parse("f1k1" * 122 + "f11k11_g9"), generate=100)


def test_a_tail_goes_through_the_kernel_of_the_outermost_group_on_its_side():
    assert parse("f1k1_x_g9_f1k1f2k2f16k4_ta").tail_kernel == Kernel.short(4)
    assert parse("f1k1_x_g9_f1k1f2k2f16k4_tc").tail_kernel == Kernel.short(4)
    assert parse("ta_f16k4f2k2f1k1_g9").tail_kernel == Kernel.short(4)
    assert parse("ta_f16k4f2k2f1k1_g9_x_f2k2f1k1").tail_kernel == Kernel.short(4)
    assert parse("f16k4f2k2f1k1_g9_x_f2k2f1k1_tc").tail_kernel == Kernel.short(1)
    assert parse("tc_f3k8_x_f2k2f1k1_g9").tail_kernel == Kernel.short(2)


@pytest.mark.timed
def test_a_long_text_is_refused_fast_and_shown_in_part():
    def refused(num: int) -> None:
        with pytest.raises(ScheduleError) as caught:
            parse("f1k1" * num + "_g9")
        assert len(str(caught.value)) < 500

    assert growth(refused, 2500, 250_000) < 30  # quadratic: 10,000


def fuzz(num: int) -> None:
    rng = random.Random(0)
    pieces = [
        "f",
        "k",
        "h",
        "w",
        "g",
        "x",
        "_",
        "td",
        "ta",
        "tc",
        "+",
        "td",
        "+d",
        "D",
        "1",
        "9",
        "16",
        "0",
        " ",
        "é",
        "\n",
        "F",
    ]
    for _ in range(num):
        text = "".join(rng.choice(pieces) for _ in range(rng.randrange(30)))
        try:
            parse(str(parse(text)))
        except ScheduleError as fault:
            assert 0 <= fault.at <= max(len(text), 1)


def test_nothing_else_than_a_schedule_error_comes_out():
    fuzz(5000)


@pytest.mark.slow
def test_nothing_else_than_a_schedule_error_comes_out_of_many():
    fuzz(100_000)


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(text: str):
    try:
        parse(text)
    except ScheduleError as fault:
        assert "^" in str(fault)
