"""Guidance by text and by history."""

from __future__ import annotations

import math

import pytest
import torch

from framepack.errors import FramePackError
from framepack.packing.history import ContextGroup
from framepack.planning.video import make_plan
from framepack.sampling.guidance import HISTORY, TEXT, Guidance, blank, sees
from framepack.schedule.grammar import parse
from framepack.shapes.generate import Builtin, generate
from framepack.units import Kernel

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(
    ("sigma", "seen", "led"),
    [
        (1.0, True, (TEXT, 3.0)),
        (0.9, True, (TEXT, 3.0)),
        (0.89, True, (HISTORY, 2.0)),
        (0.89, False, (TEXT, 3.0)),  # what sees nothing has the text alone
    ],
)
def test_text_guides_at_high_levels_and_history_below(sigma: float, seen: bool, led):
    assert Guidance(cfg=3.0, cfg_above=0.9, history=1.0).at(sigma, seen) == led


def test_without_history_guidance_text_guides_where_it_is_asked_to():
    assert Guidance(cfg=3.0).at(0.1, True) == (TEXT, 3.0)
    assert Guidance(cfg=3.0, cfg_above=0.9).at(0.1, True) == (None, 1.0)
    assert Guidance().at(1.0, True) == (None, 1.0)
    assert Guidance(history=0.5).at(1.0, True) == (HISTORY, 1.5)


@pytest.mark.parametrize("number", [1.1, -0.1, math.nan])
def test_a_noise_level_outside_0_to_1_is_rejected(number: float):
    with pytest.raises(FramePackError, match=rf"cfg_above .*got {number:g}\."):
        Guidance(cfg_above=number)


@pytest.mark.parametrize("number", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize(("field", "name"), [("cfg", "cfg"), ("history", "history_guidance")])
def test_a_scale_that_is_no_number_from_0_on_is_rejected(field: str, name: str, number: float):
    with pytest.raises(FramePackError, match=rf"{name} .*got {number:g}\."):
        Guidance(**{field: number})


def test_a_blank_history_keeps_its_tokens_and_shows_nothing():
    group = ContextGroup(kernel=Kernel(1, 2, 2), latents=torch.ones(1, 16, 2, 4, 4), positions=(3, 4))
    (empty,) = blank([group])
    assert (empty.num_tokens(), empty.positions) == (group.num_tokens(), group.positions)
    assert sees([group]) and not sees([empty])


@pytest.fixture(scope="module")
def model() -> Builtin:
    return Builtin.load()


def made(model: Builtin, **guidance: float) -> torch.Tensor:
    """A section after one step, which is as linear in the scale as the guidance is."""
    plan = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=10)
    start = torch.linspace(-1, 1, 16 * 64).reshape(1, 16, 1, 8, 8)
    words = ["a red star moves to the right on a plain background"]
    return generate(model, plan, words, start=start, steps=1, seed=0, guidance=Guidance(**guidance))[:, :, 1:]


def test_the_step_goes_on_past_the_first_pass_by_the_scale(model: Builtin):
    plain = made(model)
    for name, none in (("history", 0.0), ("cfg", 1.0)):
        once, twice = (made(model, **{name: none + n}) - plain for n in (1.0, 2.0))
        assert once.norm() > 1e-2 * plain.norm()
        torch.testing.assert_close(twice, 2 * once, rtol=0, atol=1e-3)
