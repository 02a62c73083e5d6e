"""The step cache's rule: what is computed, what is guessed, and how good the guess is."""

from __future__ import annotations

import pytest
import torch

from framepack.errors import FramePackError
from framepack.sampling.sigmas import flow_sigmas
from framepack.sampling.solvers import euler, unipc
from framepack.sampling.step_cache import StepCache

pytestmark = pytest.mark.numeric

SIGMAS = flow_sigmas(25, 144)
LEVELS = SIGMAS.tolist()
torch.manual_seed(0)
BASE, TURN = torch.randn(1, 16, 9, 8, 8), torch.randn(1, 16, 9, 8, 8)


def curve(sigma: float, bend: float = 0.0) -> torch.Tensor:
    """Denoised latents of a pass: a straight line in sigma, or a bent one."""
    return BASE + TURN * (0.2 * sigma + bend * sigma**3)


def passed(cache: StepCache, keys=("positive",), bend: float = 0.0) -> list[tuple[float, torch.Tensor, bool]]:
    """Every level, what came out, and whether it was computed."""
    found = []
    for sigma in LEVELS[:-1]:
        asked = []

        def compute(sigma: float = sigma, asked: list = asked) -> torch.Tensor:
            asked.append(sigma)
            return torch.cat([curve(sigma, bend)] * len(keys))

        found.append((sigma, cache.run(keys, sigma, compute), bool(asked)))
    return found


def test_a_straight_line_is_guessed_exactly_after_two_steps_and_the_last_is_computed():
    cache = StepCache(100.0, LEVELS)
    made = passed(cache)
    assert [computed for _, _, computed in made] == [True, True, *[False] * 22, True]
    for sigma, x0, _ in made:
        assert torch.allclose(x0, curve(sigma), atol=1e-5)
    assert (cache.computed, cache.skipped) == (3, 22)


def test_a_higher_threshold_skips_more_and_errs_more_and_the_drift_stays_under_it():
    skipped, errors = [], []
    for threshold in (0.0, 0.1, 0.5, 2.0):
        cache, drift, last = StepCache(threshold, LEVELS), 0.0, LEVELS[0]
        for i, (sigma, x0, computed) in enumerate(passed(cache, bend=0.3)):
            true = curve(sigma, 0.3)
            last, drift = (sigma, 0.0) if computed else (last, drift)
            drift += 100 * float((x0 - true).norm() / true.norm()) * (sigma - LEVELS[i + 1]) / sigma
            assert drift <= threshold
        skipped.append(cache.skipped)
        errors.append(drift)
    assert skipped == sorted(skipped)
    assert skipped[0] == 0 < skipped[1] < skipped[3]


def test_passes_have_states_of_their_own_and_are_skipped_together():
    cache, made = StepCache(0.5, LEVELS), {"positive": [], "negative": []}
    for sigma in LEVELS[:-1]:
        for key, bend in (("positive", 0.0), ("negative", 0.3)):
            made[key].append((sigma, bend, cache.run([key], sigma, lambda s=sigma, b=bend: curve(s, b))))
    together = StepCache(0.5, LEVELS)
    both = [
        together.run(["positive", "negative"], sigma, lambda s=sigma: torch.cat([curve(s), curve(s, 0.3)]))
        for sigma in LEVELS[:-1]
    ]
    assert cache.skipped == together.skipped > 0
    assert cache.skipped % 2 == 0
    for i, pair in enumerate(both):
        assert torch.equal(pair, torch.cat([made["positive"][i][2], made["negative"][i][2]]))
    for sigma, bend, x0 in made["positive"]:
        assert torch.allclose(x0, curve(sigma, bend), atol=1e-4)  # nothing of the other pass


def test_a_pass_that_joins_late_is_computed():
    cache = StepCache(100.0, LEVELS)
    for sigma in LEVELS[:3]:
        cache.run(["positive"], sigma, lambda s=sigma: curve(s))
    assert cache.skipped == 1
    other = torch.randn_like(BASE)
    assert torch.equal(cache.run(["another"], LEVELS[2], lambda: other), other)


@pytest.mark.parametrize("solver", [euler, unipc])
@pytest.mark.parametrize("twice", [False, True])
def test_solvers_run_through_it(solver, twice: bool):
    """A toy model whose x0 depends on x: near the uncached result; a solver that asks twice a level does no harm."""

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.tanh(BASE + 0.3 * x / (1 + sigma))

    def run(cache: StepCache | None) -> torch.Tensor:
        def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            x0 = model(x, sigma)
            if cache is not None:
                for _ in range(1 + twice):
                    x0 = cache.run(["positive"], float(sigma), lambda: model(x, sigma))
            return (x - x0) / sigma

        return solver(velocity, TURN, SIGMAS)

    cache, plain = StepCache(0.5, LEVELS), run(None)
    error = (run(cache) - plain).norm() / plain.norm()
    assert cache.skipped >= 10
    assert 0 < error < 0.02
    assert torch.equal(run(StepCache(0.0, LEVELS)), plain)


@pytest.mark.parametrize("threshold", [-0.1, 101, float("nan")])
def test_a_threshold_that_cannot_be_is_refused(threshold: float):
    with pytest.raises(FramePackError, match="threshold"):
        StepCache(threshold, LEVELS)


def test_a_pyramids_enlarged_latents_are_not_guessed_from_smaller_ones():
    cache = StepCache(100.0, LEVELS)
    for i, sigma in enumerate(LEVELS[:-1]):
        side = 4 if i < 8 else 8
        asked = []

        def compute(sigma: float = sigma, side: int = side, asked: list = asked) -> torch.Tensor:
            asked.append(side)
            return curve(sigma)[..., :side, :side]

        x0 = cache.run(("positive",), sigma, compute, (16, 9, side, side))
        assert x0.shape[-1] == side
        if i in (8, 9):
            assert asked  # no curve of this size yet
    assert cache.skipped > 0
