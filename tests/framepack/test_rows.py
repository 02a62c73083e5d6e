"""Runs of rows give what one call gives, with less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from framepack.nn import rows
from framepack.nn.layers import NORM_EPS, gated_sum, gelu_tanh, modulated_norm
from framepack.nn.rows import at_once, in_runs, takes_runs

pytestmark = pytest.mark.numeric
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
each = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


def near(got: Tensor, expected: Tensor) -> bool:
    error = (got.double() - expected.double()).norm() / expected.double().norm()
    return got.dtype == expected.dtype and float(error) <= TOLERANCE[expected.dtype]


@each
@pytest.mark.parametrize("batch", [1, 2])
def test_norms_and_gates_are_their_formulas(dtype: torch.dtype, batch: int):
    x, z = torch.randn(batch, 5, 8).to(dtype), torch.randn(batch, 5, 8).to(dtype)
    shift, scale = torch.randn(batch, 8).to(dtype), torch.randn(batch, 8).to(dtype)
    exact = nn.functional.layer_norm(x.double(), (8,), eps=NORM_EPS)
    exact = exact * (1 + scale.double()[:, None]) + shift.double()[:, None]
    assert near(modulated_norm(x, shift, scale), exact.to(dtype))
    assert near(gated_sum(x, scale, z), (x.double() + scale.double()[:, None] * z.double()).to(dtype))


def test_no_primitive_writes_over_its_inputs():
    given = [torch.randn(1, 5, 8), torch.randn(1, 8), torch.randn(1, 5, 8)]
    before = [x.clone() for x in given]
    with torch.no_grad():
        modulated_norm(given[0], given[1], given[1])
        gated_sum(*given)
        gelu_tanh(given[0])
    assert all(map(torch.equal, given, before))


@pytest.mark.parametrize("several", [False, True])
def test_runs_give_what_one_call_gives(several: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(rows.ROWS, "cpu", 3)
    layer, calls = nn.Linear(8, 4).requires_grad_(False), []

    def function(x: Tensor, y: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        calls.append(x.shape[1])
        return (layer(x) + y, y) if several else layer(x) + y

    segments = [(function, torch.randn(2, num, 8), torch.randn(2, num, 4)) for num in (8, 2)]
    for given in (segments, segments[:1]):
        calls.clear()
        with torch.no_grad():
            made, expected = in_runs(*given), at_once(*given)
        assert isinstance(made, tuple) == several
        for one, other in zip(*((made, expected) if several else ([made], [expected])), strict=True):
            assert near(one, other)
        assert calls[:3] == [2, 3, 3]


def test_autograd_gets_one_call():
    calls = []
    with torch.enable_grad():
        in_runs((lambda x: calls.append(x.shape[1]) or x, torch.randn(1, 3000, 2)))
    assert calls == [3000]


def hooked() -> nn.Linear:
    made = nn.Linear(2, 2)
    made.register_forward_hook(lambda module, args, out: out)
    return made


def replaced() -> nn.Linear:
    made = nn.Linear(2, 2)
    made.forward = lambda x: x
    return made


def quantized() -> nn.Linear:
    made = nn.Linear(2, 2)
    made.weight = type("Packed", (nn.Parameter,), {})(made.weight)
    return made


def test_a_plain_module_takes_runs_and_may_have_hooks_of_its_own():
    module = nn.Sequential(nn.Linear(2, 2), nn.RMSNorm(2))
    module.register_forward_pre_hook(lambda *_: None)
    assert takes_runs(module)


@pytest.mark.parametrize("layer", [hooked, replaced, quantized])
def test_a_layer_that_does_more_in_each_call_takes_none(layer):
    assert not takes_runs(nn.Sequential(nn.Linear(2, 2), layer()))
