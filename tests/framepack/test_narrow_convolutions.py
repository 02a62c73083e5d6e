"""Convolutions of one narrow clip on a CPU give PyTorch's own numbers, in less time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from framepack.shapes.builtin import ASSETS
from framepack.shapes.encode import load_vae
from framepack.vae.narrow import FEW, NarrowConvolutions

WEIGHTS = ASSETS / "vae" / "framepack_shapes_vae.safetensors"


class Batches(TorchFunctionMode):
    """Notes the batch of every convolution that PyTorch runs within it."""

    def __init__(self):
        super().__init__()
        self.seen: list[int] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.conv3d:
            self.seen.append(len(args[0]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 8, 1, 6, 5), {"padding": (0, 1, 1)}),
        ((1, 8, 3, 6, 5), {}),
        ((1, 8, 3, 7, 5), {"padding": 1}),
        ((1, 8, 3, 2, 5), {"padding": 1}),
        ((2, 8, 4, 6, 6), {"padding": 1}),
        ((1, 8, 4, 6, 6), {"stride": (2, 1, 2), "padding": 1}),
        ((1, 8, 3, 6, 5), {"padding": "same"}),
        ((1, 8, 5, 7, 7), {"dilation": 2, "padding": (2, 2, 2)}),
        ((1, 8, 3, 6, 5), {"groups": 2, "padding": 1, "bias": False}),
    ],
)
def test_any_convolution_gives_the_same_numbers(shape: tuple[int, ...], options: dict):
    torch.manual_seed(0)
    layer = torch.nn.Conv3d(8, 4, (min(shape[2], 3), 3, 3), **options)
    x = torch.randn(shape)
    exact = layer(x)
    with NarrowConvolutions():
        got = layer(x)
    assert got.shape == exact.shape
    assert torch.allclose(got, exact, atol=1e-5)


def test_the_built_in_vae_gives_the_same_frames_and_latents():
    vae = load_vae(WEIGHTS)
    torch.manual_seed(0)
    latents, pixels = torch.randn(1, 16, 3, 6, 5), torch.rand(1, 3, 9, 48, 40)
    with torch.no_grad():
        frames, encoded = vae.decode(latents), vae.encode(pixels)
        with NarrowConvolutions():
            assert torch.allclose(vae.decode(latents), frames, atol=1e-5)
            assert torch.allclose(vae.encode(pixels), encoded, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "batch"),
    [
        ((1, 8, 3, 6, 5), torch.float32, 2),
        ((1, 8, FEW // 32, 4, 1), torch.float32, 2),
        ((1, 8, FEW // 32 + 1, 4, 1), torch.float32, 1),
        ((1, 8, 3, 6, 5), torch.float64, 1),
    ],
)
def test_only_a_small_clip_of_float32_goes_through_in_halves(shape: tuple[int, ...], dtype: torch.dtype, batch: int):
    x, weight = torch.randn(shape, dtype=dtype), torch.randn(4, 8, 1, 1, 1, dtype=dtype)
    with Batches() as batches, NarrowConvolutions():
        F.conv3d(x, weight)
    assert batches.seen == [batch]


def test_a_convolution_takes_names_and_gives_a_gradient():
    x, layer = torch.randn(1, 2, 3, 6, 4), torch.nn.Conv3d(2, 3, 3, padding=1)
    with NarrowConvolutions():
        named = torch.conv3d(input=x, weight=layer.weight, bias=layer.bias, padding=1)
    assert torch.allclose(named, layer(x), atol=1e-5)
    found, exact = (torch.autograd.grad(made.sum(), layer.weight)[0] for made in (named, layer(x)))
    assert torch.allclose(found, exact, atol=1e-4)
