"""Which of the known key layouts a checkpoint has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

PREFIXES = ("model.diffusion_model.", "transformer.", "diffusion_model.")
MARKS = ("x_embedder.proj.weight", "img_in.proj.weight")  # here, and in HunyuanVideo's original names

Value = TypeVar("Value")


def strip_prefix(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Take a known prefix off the keys that have it; without it, everything stays."""
    for prefix in PREFIXES:
        if any(prefix + mark in weights for mark in MARKS):
            return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    return dict(weights)


def without_prefix(name: str) -> str:
    """A tensor's or layer's name without a known prefix."""
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)
