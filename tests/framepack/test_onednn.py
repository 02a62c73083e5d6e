"""Products and attention through oneDNN give what PyTorch's own give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from framepack.nn import onednn
from framepack.nn.attention import sdpa
from framepack.nn.fused import linear, linear_gelu

HALF = torch.bfloat16


def error(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float((got.double() - exact).norm() / exact.norm())


def heads(spread: float, queries: int, keys: int, dim: int) -> list[torch.Tensor]:
    """q, k, v laid out as a block makes them: tokens outermost."""
    torch.manual_seed(0)
    made = [torch.randn(2, num, 3, dim).to(HALF).transpose(1, 2) for num in (queries, keys, keys)]
    return [spread * made[0], *made[1:]]


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0, 12.0])
@pytest.mark.parametrize(("queries", "keys", "dim"), [(300, 1800, 128), (1000, 700, 64), (7, 5, 32)])
def test_attention_is_as_near_to_the_exact_one_as_rounding_allows(spread, queries, keys, dim):
    q, k, v = heads(spread, queries, keys, dim)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double()).transpose(1, 2)
    got = onednn.attention(q, k, v)
    assert got.dtype == HALF
    assert error(got, exact) < 3 * 2**-9  # three roundings to bfloat16, where PyTorch's own has two


def test_a_head_whose_weights_would_vanish_is_pytorchs_own():
    q, k, v = heads(1.0, 64, 96, 32)
    q[:, 1] *= 100  # of one head
    k[:, 1] += 3
    own = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    got = onednn.attention(q, k, v)
    assert torch.equal(got[:, :, 1], own[:, :, 1])
    assert not torch.equal(got[:, :, 0], own[:, :, 0])


@pytest.mark.parametrize("size", [30.0, 100.0, 248.0, 288.0, 334.0, 354.0, 380.0, 1000.0])
def test_scores_as_large_as_their_bound_are_weighed_right(size: float):
    torch.manual_seed(0)
    q = torch.zeros(1, 2, 70, 32, dtype=HALF)
    q[..., 0], q[..., 1] = size, torch.linspace(0, 8, 70).to(HALF)
    k = torch.zeros(1, 2, 50, 32, dtype=HALF)
    k[..., 0], k[..., 1] = size / 4, torch.randn(50).to(HALF)  # all of one direction but for a little
    v = torch.randn(1, 2, 50, 32).to(HALF)
    scaled = (q * 32**-0.5).double() * 32**0.5  # as rounded: here that one rounding moves scores by more than one
    exact = F.scaled_dot_product_attention(scaled, k.double(), v.double()).transpose(1, 2)
    assert error(onednn.attention(q, k, v), exact) < 3 * 2**-9


def test_what_is_no_number_stays_none():
    q, k, v = heads(1.0, 64, 96, 32)
    q[0, 0, 3] = float("nan")
    got = onednn.attention(q, k, v)
    assert got[0, 3, 0].isnan().all()
    assert got[1].isfinite().all()


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
    reason="PyTorch's own attention is the fastest on this processor",
)
def test_sdpa_takes_it_where_nothing_looks_on_and_no_mask_is_given():
    q, k, v = heads(1.0, 600, 900, 32)
    with torch.no_grad():
        assert torch.equal(sdpa(q, k, v), onednn.attention(q, k, v).flatten(2))
        masked = sdpa(q, k, v, torch.ones(2, 1, 1, 900, dtype=torch.bool))
    plain = sdpa(q.requires_grad_(), k, v)
    assert plain.grad_fn is not None
    assert error(masked, plain.detach().double()) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
@pytest.mark.parametrize("rows", [5, 200])
def test_products_are_the_layers(dtype: torch.dtype, rows: int):
    layer = torch.nn.Linear(48, 32, dtype=dtype).requires_grad_(False)
    x = torch.randn(2, rows, 48).to(dtype)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    tolerance = {torch.float32: 1e-6, HALF: 1e-2}[dtype]
    with torch.no_grad():
        assert error(linear(layer, x), exact) < tolerance
        assert error(linear_gelu(layer, x), F.gelu(exact, approximate="tanh")) < tolerance


def test_a_part_of_a_weight_is_left_to_pytorch():
    weight = torch.randn(32, 96)
    x = torch.randn(200, 48)
    assert not onednn.multiplies(x, weight[:, :48])
    assert not onednn.multiplies(x.half(), weight[:, :48].half().contiguous())


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 8, 1, 6, 5), {"padding": (0, 1, 1)}),
        ((1, 8, 3, 6, 5), {}),
        ((2, 8, 4, 6, 6), {"stride": (2, 1, 2), "padding": 1}),
        ((1, 8, 3, 6, 5), {"padding": "same"}),
        ((1, 8, 5, 7, 7), {"dilation": 2, "padding": (2, 2, 2)}),
        ((1, 8, 3, 6, 5), {"groups": 2, "padding": 1}),
    ],
)
def test_convolutions_of_anyones_modules_give_the_same(shape: tuple[int, ...], options: dict):
    torch.manual_seed(0)
    time = 1 if shape[2] == 1 else 3
    layer = torch.nn.Conv3d(8, 4, (time, 3, 3), **options).requires_grad_(False)
    x = torch.randn(shape)
    exact = layer(x)
    with onednn.Convolutions(), torch.no_grad():
        got = layer(x)
    assert got.shape == exact.shape
    assert torch.allclose(got, exact, atol=1e-5)


def test_a_convolution_may_be_called_by_names_and_compiled():
    x, layer = torch.randn(1, 2, 3, 4, 4), torch.nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)
    exact, compiled = layer(x), torch.compile(layer, backend="eager")
    with onednn.Convolutions(), torch.no_grad():
        named = torch.conv3d(input=x, weight=layer.weight, bias=layer.bias, padding=1)
        assert torch.allclose(named, exact, atol=1e-5)
        assert torch.allclose(compiled(x), exact, atol=1e-5)


def test_convolutions_that_need_a_gradient_or_are_of_another_kind_are_pytorchs_own():
    x, weight = torch.randn(1, 2, 3, 4, 4), torch.randn(3, 2, 1, 3, 3, requires_grad=True)
    with onednn.Convolutions():
        F.conv3d(x, weight).sum().backward()
        with torch.no_grad():
            assert F.conv3d(x.double(), weight.double()).dtype == torch.float64
            assert F.conv3d(x[0], weight).shape == (3, 3, 2, 2)
    assert weight.grad is not None


def test_a_small_convolution_goes_through_onednn():
    x, weight = torch.randn(1, 8, 1, 8, 8), torch.randn(8, 8, 1, 3, 3)

    def kinds() -> set[str]:
        with torch.no_grad(), torch.profiler.profile() as seen:
            F.conv3d(x, weight)
        return {event.key for event in seen.key_averages()}

    assert "aten::mkldnn_convolution" not in kinds()  # else PyTorch has mended it, and the class can go
    with onednn.Convolutions():
        assert "aten::mkldnn_convolution" in kinds()
