"""The backbones, each a folder here that states a BACKBONE. A new one is found by being there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ..errors import CheckpointError
from ..packing.kernels import LAYER_NAMES
from ..units import BASE, Kernel
from .names import KeyMap

Shapes = Mapping[str, Sequence[int]]
POSITIONS = "framepack.positions"  # metadata
PACKING = {kernel: f"clean_x_embedder.{name}" for kernel, name in LAYER_NAMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A backbone, and how its checkpoints are recognized.

    `key` is its folder here, and its file among the host's models; `own` is a tensor that only our names (those of
    diffusers) have, `original` one that only the original's have; `base` is the base patchify layer; `in_fp8` matches
    the only tensors that fp8 may hold: the matrices of attention and feed-forward. The others lose by it and are
    small, except modulations, whose error all tokens of a block share. `positions` are the latent frame indices that
    its released weights were trained on, by the order that the weights are for. `packing` names the packing layers.
    `outside_noise` are the least and the most noise that its training put on latents from outside, if it did.
    `schedule` is the only one that its released weights know, if there is one, and `solvers` the solver of each of
    their variants, by a word of the file's name.
    """

    key: str
    name: str
    spec: Any
    dit: Any
    own: str
    original: str
    base: str
    names: KeyMap
    in_fp8: re.Pattern[str]
    positions: Mapping[str, range] = field(default_factory=dict)
    packing: Mapping[Kernel, str] = field(default_factory=lambda: PACKING)
    outside_noise: tuple[float, float] | None = None
    schedule: str | None = None
    solvers: Mapping[str, str] = field(default_factory=dict)

    def is_packed(self, keys: Iterable[str]) -> bool:
        """Are there packing layers among a checkpoint's keys?"""
        return not {f"{name}.weight" for name in self.packing.values()}.isdisjoint(keys)

    def solver_of(self, name: str) -> str | None:
        """The solver of a released variant by its file's or folder's name; None where the name does not tell."""
        found = {solver for word, solver in self.solvers.items() if re.search(rf"(?i)(?<![a-z]){word}(?![a-z])", name)}
        return found.pop() if len(found) == 1 else None

    def trained_positions(self, spec: Any, order: str) -> range | None:
        """The latent frame indices that a model was trained on: its file's own statement, else the release's by order.

        None where they are unknown. Beyond them a model may degrade: text tokens have no place, so indices count.
        """
        return spec.positions if spec.positions is not None else self.positions.get(order)


@cache
def backbones() -> tuple[Backbone, ...]:
    """Every backbone, by name."""
    package = __package__ or ""
    found = [import_module(f"{package}.{m.name}") for m in iter_modules(import_module(package).__path__) if m.ispkg]
    return tuple(sorted((module.BACKBONE for module in found), key=lambda backbone: backbone.name))


def backbone_with(spec: Any) -> Backbone:
    """The backbone of a model's sizes."""
    return next(backbone for backbone in backbones() if type(spec) is backbone.spec)


def backbone_of(keys: Iterable[str]) -> Backbone | None:
    """The backbone whose names the keys are, ours or the release's."""
    held = set(keys)
    return next((b for b in backbones() if held & {b.own, b.original}), None)


def packed_kernels(shapes: Shapes, packing: Mapping[Kernel, str] = PACKING) -> tuple[Kernel, ...]:
    """The kernels that have packing layers of their own. Raises CheckpointError if there are none."""
    kernels = tuple(kernel for kernel, name in packing.items() if f"{name}.weight" in shapes)
    if not kernels:
        raise CheckpointError(
            f"The file has no packing layers ({packing[BASE]}), so it is no FramePack model yet. Convert it first: "
            "python -m framepack convert SOURCE TARGET."
        )
    return kernels


def stated_positions(metadata: Mapping[str, str] | None) -> range | None:
    """The latent frame indices that a file says it was trained on, `framepack.positions`: [first, last].

    Raises CheckpointError where they are not two integers in order.
    """
    stated = (metadata or {}).get(POSITIONS)
    if stated is None:
        return None
    try:
        first, last = json.loads(stated)
        found = range(first, last + 1)
    except (ValueError, TypeError, RecursionError):
        found = range(0)
    if not found:
        raise CheckpointError(f"The metadata {POSITIONS} must be [first, last]; got {stated[:40]!r}.")
    return found


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """How many numbers follow the prefix in keys."""
    return len({key[len(prefix) :].split(".")[0] for key in shapes if key.startswith(prefix)})
