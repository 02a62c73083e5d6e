"""A checkpoint's identity tells weights apart and refuses those that are not finite."""

from __future__ import annotations

import pytest
import torch

from framepack.checkpoints.files import HEAD, SMALL, identity
from framepack.errors import CheckpointError

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused_by_the_tensors_name(dtype: torch.dtype, value: float):
    weights = {"a": torch.ones(3, 1000), "b": torch.ones(3, 1000).to(dtype)}
    identity("file", weights)
    weights["b"][2, 999] = value
    with pytest.raises(CheckpointError, match="file: b holds values that are not finite"):
        identity("file", weights)


def test_values_whose_sum_is_too_large_are_finite_all_the_same():
    largest = torch.finfo(torch.float32).max
    identity("file", {"a": torch.full((4,), largest), "b": torch.tensor([largest, largest, -largest, -largest])})


def test_opposite_infinities_are_refused():
    with pytest.raises(CheckpointError, match="not finite"):
        identity("file", {"a": torch.tensor([float("inf"), -float("inf"), 1.0])})


def test_a_large_tensor_is_known_by_its_head():
    large = torch.zeros(SMALL + 1)
    before = identity("file", {"a": large})
    large[HEAD] = float("nan")  # beyond the head
    assert identity("file", {"a": large}) == before
    large[0] = 1.0
    assert identity("file", {"a": large}) != before


def test_keys_shapes_and_dtypes_count():
    weights = {"a": torch.zeros(2, 3)}
    known = {identity("file", made) for made in (weights, {"b": weights["a"]}, {"a": weights["a"].view(3, 2)})}
    known.add(identity("file", {"a": weights["a"].bfloat16()}))
    assert len(known) == 4
    assert identity("another", weights) in known
