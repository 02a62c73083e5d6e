"""Noise levels, solvers and the section loop."""

from __future__ import annotations

import math

import pytest
import torch

from framepack.errors import FramePackError, PlanError, SamplingError
from framepack.packing.history import gather
from framepack.pipeline import check_finite, run_plan, section_noise
from framepack.planning.video import make_plan
from framepack.sampling.sigmas import check_sigmas, dynamic_shift, flow_sigmas
from framepack.sampling.solvers import euler, unipc
from framepack.schedule.grammar import parse

pytestmark = pytest.mark.numeric

MEAN, DEVIATION = 0.7, 0.4  # of the data of a flow whose path is known


def exact(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x at a noise level on the path of z, for Gaussian data."""
    return (1 - sigma) * MEAN + torch.sqrt((1 - sigma) ** 2 * DEVIATION**2 + sigma**2) * z


def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    a = 1 - sigma
    x0 = MEAN + a * DEVIATION**2 / (a * a * DEVIATION**2 + sigma**2) * (x - a * MEAN)
    return (x - x0) / sigma


def levels(num: int) -> torch.Tensor:
    """Noise levels evenly spaced in lambda, begun in small steps, so that the first steps' order costs nothing."""
    length = math.log(0.95 / 0.2)
    steps, step = [0.0], (length / num) ** 2 / 4
    while step < length / num:
        steps.append(steps[-1] + step)
        step *= 2
    first = steps[-1]
    steps += [first + (length - first) * (i + 1) / num for i in range(num)]
    return torch.cat([0.95 * torch.exp(-torch.tensor(steps, dtype=torch.float64)), torch.zeros(1, dtype=torch.float64)])


def error(solver, num: int, **options) -> float:
    z, sigmas, seen = torch.tensor([-1.3, 0.2, 0.9], dtype=torch.float64), levels(num), []
    solver(velocity, exact(z, sigmas[0]), sigmas, lambda i, x, x0: seen.append(x), **options)
    return float((seen[-1] - exact(z, sigmas[-2])).abs().max())


@pytest.mark.parametrize(
    ("solver", "options", "order"),
    [(euler, {}, 1), (unipc, {"order": 1}, 2), (unipc, {"order": 2}, 3), (unipc, {"order": 3}, 4)],
    ids=["euler", "unipc-1", "unipc-2", "unipc-3"],
)
def test_a_solver_has_its_published_order(solver, options, order):
    """UniPC of order p has order p + 1 with its corrector (Zhao et al. 2023, theorem 3.1)."""
    slope = math.log2(error(solver, 32, **options) / error(solver, 64, **options))
    assert order - 0.2 < slope < order + 0.3


def test_the_last_guess_is_unipcs_result():
    calls = []

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(x - sigma * velocity(x, sigma))
        return velocity(x, sigma)

    out = unipc(model, torch.ones(3, dtype=torch.float64), flow_sigmas(9, 256).double())
    assert len(calls) == 9
    assert torch.allclose(out, calls[-1])


@pytest.mark.parametrize(("size", "shift"), [(640, 7.0), (512, 7.0), (480, 6.22), (384, 3.80), (256, 2.33)])
def test_the_shift_is_the_references(size: int, shift: float):
    assert dynamic_shift(9 * (size // 8) ** 2 // 4) == pytest.approx(shift, abs=0.006)


def test_noise_levels_fall_from_one_to_zero():
    sigmas = flow_sigmas(25, 9 * 1560)
    assert (sigmas[0], sigmas[-1]) == (1, 0)
    assert (sigmas[1:] < sigmas[:-1]).all()
    t = torch.linspace(1, 0, 26)[12].item()
    assert sigmas[12].item() == pytest.approx(7 / (7 + 1 / t - 1))


@pytest.mark.parametrize("steps", [0, -1, 100_000])
def test_a_number_of_steps_out_of_bounds_is_rejected(steps: int):
    with pytest.raises(FramePackError, match=f"got {steps}"):
        flow_sigmas(steps, 100)


def test_noise_belongs_to_the_section():
    one, again, other = section_noise(3, 1, (4,)), section_noise(3, 1, (4,)), section_noise(3, 2, (4,))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, section_noise(4, 1, (4,)))


def test_the_loop_puts_every_frame_in_its_place():
    plan = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=37)
    blank = torch.zeros(1, 2, 1, 2, 2)

    def sample(section, history, index):
        for group, context in zip(history, section.context, strict=True):
            wanted = [f if isinstance(f, int) else 0 for f in context.frames]
            assert group.latents[0, 0, :, 0, 0].tolist() == wanted
        return torch.stack([torch.full((1, 2, 2, 2), float(f)) for f in section.made], 2)

    video = run_plan(plan, {0: blank}, sample, like=blank)
    assert video[0, 0, :, 0, 0].tolist() == list(range(37))


def test_a_slot_without_its_latent_is_named():
    plan = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=37, end=True)
    blank = torch.zeros(1, 2, 1, 2, 2)
    with pytest.raises(PlanError, match="'end'"):
        gather(plan.sections[0], {0: blank}, blank)


@pytest.mark.parametrize("levels", [[], [1.0], [1.0, math.nan], [math.inf, 0.0], [1.0, -0.1]])
def test_sigmas_that_take_no_step_or_are_not_finite_are_rejected(levels: list[float]):
    with pytest.raises(FramePackError, match="sigmas .*got") as caught:
        check_sigmas(torch.tensor(levels))
    assert all(f"{level:g}"[:4] in str(caught.value) for level in levels)
    check_sigmas(torch.tensor([1.0, 0.0]))


def test_a_section_with_one_value_that_is_not_finite_is_rejected_by_its_number():
    latents = torch.zeros(1, 16, 9, 4, 4)
    check_finite(latents, 2)
    latents[0, 3, 1, 2, 0] = math.inf
    with pytest.raises(SamplingError, match="Section 3 is not finite"):
        check_finite(latents, 2)
