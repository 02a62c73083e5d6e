"""GGUF's blocks are dequantized as the package gguf does it, value by value."""

from __future__ import annotations

import itertools

import gguf
import numpy as np
import pytest
import torch

from framepack.checkpoints.gguf_blocks import BLOCKS, ROWS, compiled, dequantized

SCALES = {  # where a block's float16 scales stand, in bytes
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)},
    **{"IQ4_NL": (0,), "IQ4_XS": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,)},
}


def random_blocks(kind: str, rows: int, seed: int = 0) -> np.ndarray:
    """Any bits, with finite scales of a weight's size."""
    values, size, _ = BLOCKS[kind]
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (rows * 3, size), dtype=np.uint8)
    for at in SCALES[kind]:
        scales = (generator.standard_normal((len(blocks), 1)) * 0.01).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return blocks.reshape(rows, 3 * size)


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_type_equals_the_packages_values(kind: str):
    packed = random_blocks(kind, 7)
    expected = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(dequantized(torch.from_numpy(packed), kind).numpy(), expected)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_what_the_package_quantizes_equals_its_own_values(kind: str):
    weight = np.random.default_rng(1).standard_normal((ROWS + 3, 96)).astype(np.float32)  # more rows than at a time
    packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType[kind])
    expected = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(dequantized(torch.from_numpy(packed), kind).numpy(), expected)


def test_values_in_another_dtype_are_the_same_rounded():
    packed = torch.from_numpy(random_blocks("Q4_K", 4))
    assert torch.equal(dequantized(packed, "Q4_K", torch.bfloat16), dequantized(packed, "Q4_K").bfloat16())


def test_sizes_are_the_packages():
    for kind, (values, size, _) in BLOCKS.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]] == (values, size)


def test_every_type_stays_compiled_beside_all_others():
    """PyTorch runs a function's ninth compiled form step by step; there are twelve types."""
    compilations = dict.fromkeys(BLOCKS, 0)

    def counting(kind: str):
        def backend(graph: torch.fx.GraphModule, _inputs: object):
            compilations[kind] += 1
            return graph.forward

        return backend

    backends = {kind: counting(kind) for kind in BLOCKS}
    for rows, kind in itertools.product((2, 5), BLOCKS):
        packed = torch.from_numpy(random_blocks(kind, rows))
        expected = dequantized(packed, kind, torch.float16)
        got = compiled(kind, backends[kind])(packed.reshape(-1), kind, torch.float16)
        assert torch.equal(got.view(rows, -1), expected)
    assert all(number == 1 for number in compilations.values()), compilations
