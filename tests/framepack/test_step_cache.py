"""The step cache's rule."""

from __future__ import annotations

import pytest
import torch

from framepack.errors import FramePackError
from framepack.models.hunyuan import HunyuanDiT
from framepack.sampling.step_cache import StepCache
from framepack.training.train_dit import small_spec


def test_a_step_that_hardly_changes_is_skipped_and_one_that_does_is_not():
    cache, x, calls = StepCache(0.1), torch.randn(1, 4, 8), []

    def step(first: torch.Tensor, final: bool = False, key: str = "positive") -> torch.Tensor:
        def rest(y: torch.Tensor) -> torch.Tensor:
            calls.append(key)
            return y * 2

        return cache.run(key, final, x, x + first, rest)

    one = torch.ones(1, 4, 8)
    assert torch.equal(step(one), (x + one) * 2)
    assert torch.allclose(step(one * 1.05), x + one * 1.05 + (x + one))  # the kept rest
    assert calls == ["positive"]
    step(one * 1.05, key="negative")  # a pass of its own
    step(one * 1.3)
    step(one * 1.3, final=True)
    assert calls == ["positive", "negative", "positive", "positive"]
    assert (cache.computed, cache.skipped) == (4, 1)


def test_a_threshold_of_zero_changes_no_bit():
    torch.manual_seed(0)
    dit = HunyuanDiT(small_spec())
    for p in dit.parameters():
        torch.nn.init.normal_(p, std=0.05)
    cache = StepCache(0.0)
    for timestep in (900.0, 899.0):
        inputs = (torch.randn(1, 16, 2, 4, 4), torch.tensor([timestep]), torch.randn(1, 5, 128), torch.randn(1, 128))
        with torch.no_grad():
            plain = dit(*inputs)
            cached = dit(*inputs, transformer_options={"framepack_step_cache": cache})
        assert torch.equal(plain, cached)
    assert cache.skipped == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_cannot_be_is_refused(threshold: float):
    with pytest.raises(FramePackError, match="threshold"):
        StepCache(threshold)
