"""Pieces that are fused without autograd give what their plain forms give."""

from __future__ import annotations

import pytest
import torch

from framepack.nn import fused
from framepack.nn.fused import Stream, by_rows, gelu_tanh, linear_of_two, side_by_side
from framepack.nn.layers import NORM_EPS, gated_sum, modulated_norm
from framepack.nn.rope import Rope, _turned, rotate

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
each = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def both(function, *tensors):
    """With autograd, and without it."""
    with torch.enable_grad():
        plain = function(*(t.clone() for t in tensors))
    with torch.no_grad():
        alone = function(*(t.clone() for t in tensors))
    return plain, alone


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
def test_norms_and_gates_in_one_pass_are_the_plain_ones(dtype: torch.dtype, batch: int):
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 0.05, torch.float16: 5e-3}[dtype]
    x = torch.randn(batch, 5, 8).to(dtype)
    shift, scale = torch.randn(batch, 8).to(dtype), torch.randn(batch, 8).to(dtype)
    exact = torch.nn.functional.layer_norm(x.float(), (8,), eps=NORM_EPS)
    exact = exact * (1 + scale.float()[:, None]) + shift.float()[:, None]
    for got in both(modulated_norm, x, shift, scale):
        assert torch.allclose(got.float(), exact, atol=3 * tolerance)
    z = torch.randn(batch, 5, 8).to(dtype)
    for got in both(gated_sum, x, scale, z):
        assert torch.allclose(got, x + scale[:, None] * z, atol=tolerance)


TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def near(got: torch.Tensor, expected: torch.Tensor) -> bool:
    error = (got.double() - expected.double()).norm() / expected.double().norm()
    return got.dtype == expected.dtype and float(error) <= TOLERANCE[expected.dtype]


def layer(inner: int, outer: int, dtype: torch.dtype) -> torch.nn.Linear:
    return torch.nn.Linear(inner, outer, dtype=dtype).requires_grad_(False)


@each
def test_gelu_over_its_input_is_gelu_to_its_far_ends(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused, "CACHED", 100)
    x = torch.cat([torch.linspace(-30, 30, 999), torch.tensor([-1e4, -1e-6, 0.0, 1e-6, 1e4])]).to(dtype)
    plain, written = both(gelu_tanh, x)
    assert near(written, plain)
    assert torch.allclose(written, plain, rtol=1e-2, atol=TOLERANCE[dtype])
    with torch.no_grad():
        assert gelu_tanh(x).data_ptr() == x.data_ptr()
        strided = torch.randn(4, 6).to(dtype)[:, ::2]
        assert near(gelu_tanh(strided.clone()), torch.nn.functional.gelu(strided, approximate="tanh"))


@each
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("across", [False, True])
def test_streams_made_side_by_side_are_the_ones_put_together(dtype, batch, across, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused, "CACHED", 3 * 16)  # three tokens at a time, so that some pieces are turned in part
    phases = Rope(axes=(4, 2, 2)).grid(torch.arange(7), 1, 1)
    norms = [torch.nn.RMSNorm(16 if across else 8, dtype=dtype).requires_grad_(False) for _ in range(2)]
    for norm in norms:
        norm.weight.copy_(torch.randn_like(norm.weight))
    layers = [layer(16, 16, dtype) for _ in range(3)]

    def made(x, y):
        streams = (
            Stream(x, layers[0], norms[0], phases, across=across),
            Stream(y, layers[1], norms[1], across=across),
            Stream(y, layers[2]),
        )
        return side_by_side(2, *streams[:2]), side_by_side(2, streams[2]), side_by_side(2, streams[0])

    x, y = torch.randn(batch, 10, 16).to(dtype), torch.randn(batch, 4, 16).to(dtype)
    for plain, alone in zip(*both(made, x, y), strict=True):
        assert near(alone, plain)


@each
@pytest.mark.parametrize("batch", [1, 2])
def test_a_layer_of_two_tensors_is_that_of_both_side_by_side(dtype: torch.dtype, batch: int):
    wide = layer(24, 8, dtype)
    plain, alone = both(
        lambda x, y: linear_of_two(wide, x, y),
        *(torch.randn(batch, 5, d).to(dtype) for d in (8, 16)),
    )
    assert near(alone, plain)


def test_runs_of_tokens_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(fused.ROWS, "cpu", 3)
    wide, calls = layer(8, 4, torch.float32), []

    def function(x, y):
        calls.append(x.shape[1])
        return wide(x) + y

    plain, alone = both(
        lambda x, y: by_rows(function, x, y, layers=(wide,)), torch.randn(2, 8, 8), torch.randn(2, 8, 4)
    )
    assert near(alone, plain)
    assert calls == [8, 2, 3, 3]


def test_under_autocast_the_plain_pieces_run():
    wide, square = layer(24, 8, torch.float32), layer(8, 8, torch.float32)
    x, y = torch.randn(1, 5, 8), torch.randn(1, 5, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear_of_two(wide, x, y), wide(torch.cat([x, y], -1)))
        assert side_by_side(2, Stream(x, square), Stream(x, square)).dtype == torch.bfloat16


class Casting(torch.nn.Linear):
    """A host's layer, whose weight is a file's and is cast, moved or patched in its forward."""

    comfy_cast_weights = True

    def forward(self, x):
        return torch.nn.functional.linear(x, 2 * self.weight, self.bias)


class Switched(Casting):
    comfy_cast_weights = False
    weight_function = [lambda weight: 2 * weight]


class Another(torch.nn.Linear):
    def forward(self, x):
        return 3 * super().forward(x)


def hooked(inner: int, outer: int) -> torch.nn.Linear:
    made = torch.nn.Linear(inner, outer)
    made.register_forward_hook(lambda module, args, out: 5 * out)
    return made


def replaced(inner: int, outer: int) -> torch.nn.Linear:
    made = torch.nn.Linear(inner, outer)
    made.forward = lambda x, plain=made.forward: 7 * plain(x)
    return made


@pytest.mark.parametrize("kind", [Casting, Switched, Another, hooked, replaced])
def test_a_layer_that_does_more_than_its_product_is_called(kind):
    x, y = torch.randn(1, 5, 8), torch.randn(1, 5, 16)
    wide, square = kind(24, 8).requires_grad_(False), kind(8, 8).requires_grad_(False)
    assert near(*reversed(both(lambda a, b: linear_of_two(wide, a, b), x, y)))
    assert near(*reversed(both(lambda a: side_by_side(2, Stream(a, square), Stream(a, square)), x)))


def test_a_layer_whose_weights_are_cast_in_every_call_is_called_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(fused.ROWS, "cpu", 2)
    layers, calls = torch.nn.Sequential(Casting(4, 4)).requires_grad_(False), []
    with torch.no_grad():
        by_rows(lambda x: calls.append(len(x)) or layers(x), torch.randn(1, 7, 4), layers=(layers,))
    assert len(calls) == 1
