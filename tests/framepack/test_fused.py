"""Pieces that are fused without autograd give what their plain forms give."""

from __future__ import annotations

import pytest
import torch

from framepack.nn.layers import NORM_EPS, beside_gelu, gated_sum, modulated_norm
from framepack.nn.rope import Rope, _turned, rotate

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
each = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def both(function, *tensors):
    """With autograd, and without it."""
    with torch.enable_grad():
        plain = function(*(t.clone() for t in tensors))
    with torch.no_grad():
        fused = function(*(t.clone() for t in tensors))
    return plain, fused


@each
@pytest.mark.parametrize("num", [7, 4])
def test_rotation_as_complex_numbers_is_the_plain_one_to_the_bit(dtype: torch.dtype, num: int):
    x = torch.randn(2, 7, 3, 16).to(dtype)
    phases = Rope(axes=(4, 6, 6)).grid(torch.arange(num), 1, 1)
    cos, sin = (p[:, None] for p in phases)
    expected = torch.cat([_turned(x[:, :num], cos, sin), x[:, num:]], 1)
    for got in both(lambda y: rotate(y, phases), x):
        assert got.dtype == dtype
        assert torch.equal(got, expected)


def test_rotation_has_the_plain_ones_gradient():
    x = torch.randn(1, 5, 2, 8, requires_grad=True)
    phases = Rope(axes=(4, 2, 2)).grid(torch.arange(5), 1, 1)
    weight = torch.randn(1, 5, 2, 8)
    (rotate(x, phases) * weight).sum().backward()
    got, x.grad = x.grad, None
    (_turned(x, *(p[:, None] for p in phases)) * weight).sum().backward()
    assert torch.allclose(got, x.grad, atol=1e-6)


@each
@pytest.mark.parametrize("batch", [1, 2])
def test_fused_norms_gates_and_gelu_are_the_plain_ones(dtype: torch.dtype, batch: int):
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 0.05, torch.float16: 5e-3}[dtype]
    x, y = torch.randn(batch, 5, 8).to(dtype), torch.randn(batch, 5, 32).to(dtype)
    shift, scale = torch.randn(batch, 8).to(dtype), torch.randn(batch, 8).to(dtype)
    exact = torch.nn.functional.layer_norm(x.float(), (8,), eps=NORM_EPS)
    exact = exact * (1 + scale.float()[:, None]) + shift.float()[:, None]
    for got in both(modulated_norm, x, shift, scale):
        assert torch.allclose(got.float(), exact, atol=3 * tolerance)
    plain, fused = both(beside_gelu, x, y)
    assert torch.equal(plain, fused)
    z = torch.randn(batch, 5, 8).to(dtype)
    assert torch.allclose(gated_sum(x, scale, z), x + scale[:, None] * z, atol=tolerance)
