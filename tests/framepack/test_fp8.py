"""float8 with a scale for each row."""

from __future__ import annotations

import pytest
import torch

from framepack.checkpoints.files import cast
from framepack.checkpoints.fp8 import ROWS, SCALE, from_rows, to_rows

pytestmark = pytest.mark.numeric


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_any_size_come_back_to_the_formats_precision(dtype: torch.dtype):
    torch.manual_seed(0)
    sizes = torch.logspace(-6, 3, ROWS + 5)[:, None]  # more rows than are cast at a time
    weight = (torch.randn(ROWS + 5, 64) * sizes).to(dtype)
    held, scales = to_rows(weight)
    assert (held.dtype, held.shape, scales.shape) == (torch.float8_e4m3fn, weight.shape, (ROWS + 5, 1))
    back = from_rows(held, scales)
    for row in range(0, ROWS + 5, 97):
        assert error(back[row], weight[row]) < 0.04  # three bits behind the point


def test_weights_lose_less_than_without_scales_and_small_ones_far_less():
    torch.manual_seed(0)
    weight = torch.randn(256, 256) * 0.02
    plain = weight.to(torch.float8_e4m3fn).float()
    assert error(from_rows(*to_rows(weight)), weight) < 0.85 * error(plain, weight)
    small = weight / 10
    assert error(from_rows(*to_rows(small)), small) < 0.1 * error(small.to(torch.float8_e4m3fn), small)


def test_a_row_of_zeros_stays_one_and_a_row_may_double():
    held, scales = to_rows(torch.tensor([[0.0, 0.0], [3.0, -1.0]]))
    assert torch.equal(from_rows(held, scales)[0], torch.zeros(2))
    assert torch.isfinite((torch.tensor([6.0]) / scales[1]).to(held.dtype).float()).all()


def test_scales_are_exact_in_bfloat16():
    scales = to_rows(torch.randn(8, 8))[1]
    assert torch.equal(scales, scales.bfloat16().float())


def test_scales_follow_what_is_cast_and_nothing_else():
    weight = torch.randn(4, 8)
    assert list(cast("a.weight", weight, torch.float8_e4m3fn, by_rows=True)) == ["a.weight", f"a.{SCALE}"]
    assert cast("a.weight", weight, None, by_rows=True) == {"a.weight": weight}
