"""What the forward passes of a run share is computed once: modulations, refined words, phases, history tokens.

A run passes a `Constants` in the transformer options. Without one, with autograd and while a graph is compiled, the
same code computes everything in each pass. Results are looked up by the values that they were computed from, so the
tensors may be new in each step, as the host's are.

Dims: b batch, d width, m noise levels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..nn.layers import Modulation

T = TypeVar("T")
PartsOf = Callable[[Modulation], Sequence[Tensor]]  # a layer's shifts, scales and gates, each b d
KEY = "framepack_constants"  # of the transformer options
MOST = 4  # results of a kind that are kept, such as those of two prompts with and without guidance
SINGLES = 32  # noise levels that a solver evaluates between those of the run


class Memo:
    """The last few results, each with copies of the tensors that it was computed from."""

    def __init__(self, most: int):
        self.most = most
        self.held: list[tuple[Hashable, tuple[Tensor | None, ...], Any]] = []

    def get(self, key: Hashable, tensors: Sequence[Tensor | None], make: Callable[[], T]) -> T:
        """The kept result for this key and tensors of these values, or the new result of `make`."""
        entry = next((held for held in self.held if held[0] == key and _alike(held[1], tensors)), None)
        if entry is None:
            entry = key, tuple(None if t is None else t.clone() for t in tensors), make()
        # One assignment, so that the host's threads, one per device, can share it.
        self.held = [*(held for held in self.held if held is not entry), entry][-self.most :]
        return entry[2]


class Store:
    """Memos by kind. A store outlives a run, so that the next section finds what depends on the prompt."""

    def __init__(self) -> None:
        self.memos: dict[str, Memo] = {}

    def memo(self, kind: str, most: int) -> Memo:
        """The memo of a kind."""
        return self.memos.setdefault(kind, Memo(most))

    def clear(self) -> None:
        """Forget everything."""
        self.memos.clear()


class Constants:
    """One run's view of a store: the run's noise levels as timesteps, and a name for the model's weights."""

    def __init__(self, store: Store | None = None, levels: Iterable[float] = (), weights: Hashable = None):
        self.store, self.levels, self.weights = store, tuple(levels), weights

    def rounded(self, dtype: torch.dtype) -> Constants:
        """The same run with its noise levels rounded to a dtype; levels that become equal count once."""
        levels = torch.tensor(self.levels).to(dtype).tolist()
        return Constants(self.store, dict.fromkeys(levels), self.weights)

    def keep(
        self, kind: str, key: Hashable, tensors: Sequence[Tensor | None], make: Callable[[], T], most: int = MOST
    ) -> T:
        """The result of `make`, computed once for each key and values of the tensors."""
        if self.store is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return make()
        return self.store.memo(kind, most).get((self.weights, key), tensors, make)

    def level(self, timestep: Tensor) -> float | None:
        """The noise level of a batch ``b``; None where items differ or nothing is kept."""
        if self.store is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        first, *others = timestep.tolist()
        return first if all(other == first for other in others) else None

    def modulation(
        self, layers: Sequence[Modulation], timestep: Tensor, tensors: Sequence[Tensor | None], vec: Callable
    ) -> PartsOf:
        """The layers' outputs for `vec` at a timestep ``b``, from a table of the run's noise levels.

        `vec(timestep, *tensors)` gives ``b d`` and is called with a batch of levels, each with the tensors' own batch.
        """
        level = self.level(timestep)
        if level is None:
            return computed(vec(timestep, *tensors))
        known = level in self.levels
        levels = self.levels if known else (level,)
        kind, most = ("modulation", MOST) if known else ("modulation between", SINGLES)

        def table() -> list[Tensor]:
            times = torch.tensor(levels).to(timestep).repeat_interleave(len(timestep))
            return tabulated(layers, vec(times, *(_repeated(t, len(levels)) for t in tensors)), len(levels))

        values, row = self.keep(kind, levels, (timestep[:0], *tensors), table, most), levels.index(level)
        of = dict(zip(layers, values, strict=True))
        return lambda layer: of[layer][row].chunk(layer.parts, -1)


NOTHING_KEPT = Constants()


def constants_of(options: Mapping[str, Any]) -> Constants:
    """A run's constants from the transformer options."""
    return options.get(KEY, NOTHING_KEPT)


def computed(vec: Tensor) -> PartsOf:
    """Outputs for vec ``b d``, each computed when it is used."""
    return lambda layer: layer(vec)


def tabulated(layers: Iterable[Modulation], vec: Tensor, num_levels: int) -> list[Tensor]:
    """Every layer's output ``m b parts*d`` for vec ``m*b d``. A layer's weights are needed once, for all levels."""
    return [layer.linear(vec).unflatten(0, (num_levels, -1)) for layer in layers]


def _repeated(x: Tensor | None, num: int) -> Tensor | None:
    return None if x is None else x.repeat(num, *[1] * (x.ndim - 1))


def _alike(some: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> bool:
    return len(some) == len(others) and all(map(_same, some, others))


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """The same values of the same kind in the same place; NaN is never the same."""
    if one is None or other is None:
        return one is other
    return (one.dtype, one.device, one.shape) == (other.dtype, other.device, other.shape) and torch.equal(one, other)
