"""How another release names a backbone's tensors: key maps as data.

A pattern's `#` stands for a block's number. Where a release fuses several layers into one matrix, its rows are those
of the named layers one after another; `parts` says how many times the width each has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """Layers of ours that are rows of one layer of the release. `swap`: its two halves stand the other way round."""

    names: tuple[str, ...]
    parts: tuple[int, ...] = (1,)
    swap: bool = False


def one(name: str, swap: bool = False) -> Fused:
    """A layer that is one layer there too."""
    return Fused(names=(name,), swap=swap)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMap:
    """The release's modules, and lone tensors, by pattern; `spellings` are rewritten to these first, as re.sub does."""

    layers: Mapping[str, Fused]
    spellings: tuple[tuple[str, str], ...] = ()

    def layer(self, name: str) -> Fused | None:
        """What a module or lone tensor of the release is here, or None for a name that is not its own."""
        for pattern, spelling in self.spellings:
            name = re.sub(pattern, spelling, name)
        number = re.search(r"(?<=blocks\.)\d+", name)
        found = self.layers.get(name if number is None else name[: number.start()] + "#" + name[number.end() :])
        if found is None or number is None:
            return found
        return replace(found, names=tuple(ours.replace("#", number[0]) for ours in found.names))

    def tensor(self, key: str) -> Fused | None:
        """The same for a tensor's whole key, with whole keys as names."""
        lone = self.layer(key)
        if lone is not None:
            return lone
        name, _, part = key.rpartition(".")
        found = self.layer(name)
        if found is None:
            return None
        part = "weight" if part == "scale" else part
        return replace(found, names=tuple(f"{ours}.{part}" for ours in found.names))


def swapped(tensor: Tensor) -> Tensor:
    """A tensor with the two halves of its rows exchanged."""
    return torch.cat(tensor.chunk(2)[::-1])
