"""The cost of a step."""

from __future__ import annotations

import pytest

from framepack.planning.costs import against_full, cost
from framepack.schedule.grammar import parse

INVERTED = "f1k1_x_g9_f1k1f2k2f16k4_td"


def test_a_step_of_the_released_size_costs_what_was_counted():
    """0.515 PFLOP a step over 18755 tokens: 60 blocks, 3072 wide."""
    assert cost(18755) * 4 * 3072 * 60 == pytest.approx(0.515e15, rel=0.01)


def test_full_context_costs_more_by_its_tokens():
    tokens, full = 3926 + 14040, (20 + 9) * 1560
    assert against_full(parse(INVERTED), 60, 104) == pytest.approx(full * (18432 + full) / tokens / (18432 + tokens))
    assert against_full(parse(INVERTED), 60, 104, 450) > 500


def test_without_compression_nothing_is_saved():
    assert against_full(parse("td_f19k1_g9"), 60, 104) == 1


def test_the_cost_on_another_patch_is_that_of_its_own_tokens():
    assert against_full(parse(INVERTED), 30, 52, patch=1) == against_full(parse(INVERTED), 60, 104)
    assert against_full(parse(INVERTED), 60, 104, 19 + 1) == against_full(parse(INVERTED), 60, 104)
