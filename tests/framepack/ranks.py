"""What each process of test_ulysses.py runs, under torchrun: every backbone alone, and with its tokens shared out.

Prints JSON in process 0: by backbone and case the greatest relative difference. With the argument `memory` also the
share of memory at the peak.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

sys.path.insert(0, str(Path(__file__).parents[2]))

from framepack.errors import FramePackError
from framepack.models.memo import KEY, Constants, Store
from framepack.nn.attention import attention_named, sdpa
from framepack.nn.ulysses import ulysses
from framepack.packing.history import ContextGroup
from framepack.units import Kernel
from tests.backbones import SMALL, Small

HISTORY = ((1, 1, None), (2, 2, None), (4, 7, "ta"), (4, 5, "tc"))  # kernel, frames, tail
SHAPES = {"odd": (1, 16, 3, 6, 10), "padded": (2, 16, 2, 5, 7), "fewer tokens than processes": (1, 16, 1, 2, 2)}


def history_of(shape: tuple[int, ...], generator: torch.Generator) -> list[ContextGroup]:
    found, start = [], 0
    for kernel, frames, tail in HISTORY:
        latents = torch.randn(shape[0], 16, frames, *shape[3:], generator=generator)
        places = tuple(range(start, start + frames))
        found.append(ContextGroup(kernel=Kernel.short(kernel), latents=latents, positions=places, tail=tail))
        start += frames
    return found


def difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max() / one.abs().max())


def compare(small: Small) -> dict[str, float]:
    """Relative differences between one process and all of them."""
    found = {}
    spec = replace(small.spec, heads=4, **({"key_scales": 4} if hasattr(small.spec, "key_scales") else {}))
    small = replace(small, spec=spec)
    dit, together = small.model(), attention_named("ulysses")
    for name, shape in SHAPES.items():
        generator = torch.Generator().manual_seed(1)
        x, history = torch.randn(shape, generator=generator), history_of(shape, generator)
        given = {f"{name}, history": (x, range(15, 15 + shape[2]), history), f"{name}, alone": (x,)}
        for case, inputs in given.items():
            dit.attention = sdpa
            one = small.run(dit, *inputs)
            dit.attention = together
            found[case] = difference(one, small.run(dit, *inputs))
            kept = {KEY: Constants(Store(), [700.0])}
            if small.name != "helios":
                found[f"{case}, causal"] = causal(small, dit, *inputs)
            for _ in range(2):
                found[f"{case}, kept"] = difference(one, small.run(dit, *inputs, **kept))
            if small.name == "hunyuan" and shape[0] == 2:
                found[f"{case}, mask"] = masked(small, dit, *inputs)
    return found


def causal(small: Small, dit: torch.nn.Module, *inputs: object) -> float:
    """A history that sees only itself, whose keys and values are kept from step to step."""

    def steps() -> Tensor:
        kept = {KEY: Constants(Store(), [700.0])}
        return [small.run(like, *inputs, **kept) for _ in range(2)][1]

    like, together = partial(dit, causal_history=True), dit.attention
    many = steps()
    dit.attention = sdpa
    one = steps()
    dit.attention = together
    return difference(one, many)


def masked(small: Small, dit: torch.nn.Module, x: Tensor, *placed: object) -> float:
    """Prompts of different length in one batch."""
    words = torch.ones(2, 5, dtype=torch.bool)
    words[1, 3:] = False
    small, together = replace(small, extra=lambda b: {**SMALL[0].extra(b), "attention_mask": words}), dit.attention
    many = small.run(dit, x, *placed)
    dit.attention = sdpa
    one = small.run(dit, x, *placed)
    dit.attention = together
    return difference(one, many)


def resident() -> int:
    """The most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory() -> float:
    """What a forward pass adds to a rank's memory at its peak, over what it adds to that of one process."""
    small = next(s for s in SMALL if s.name == "wan-text")
    small = replace(small, spec=replace(small.spec, heads=8, head_dim=32, ffn_dim=512, blocks=2))
    dit, generator, peaks = small.model(), torch.Generator().manual_seed(1), []
    for name, side in (("ulysses", 32), ("sdpa", 32), ("ulysses", 112), ("sdpa", 112)):  # the first two have costs
        dit.attention = attention_named(name)
        x, history = (
            torch.randn(1, 16, 3, side, side, generator=generator),
            history_of((1, 16, 1, side, side), generator),
        )
        before = resident()
        small.run(dit, x, range(15, 15 + x.shape[2]), history)
        peaks.append((before, resident()))
    start, shared, alone = peaks[2][0], peaks[2][1], peaks[3][1]
    return (shared - start) / (alone - start)


def on_a_mesh_of_two_dimensions() -> float:
    """The sequence's dimension of a larger mesh counts alone."""
    half = dist.get_world_size() // 2
    mesh = init_device_mesh("cpu", (2, half), mesh_dim_names=("data", "sequence"))
    small = next(s for s in SMALL if s.name == "wan-text")
    small = replace(small, spec=replace(small.spec, heads=4))
    dit, x = small.model(), torch.randn(1, 16, 3, 6, 10, generator=torch.Generator().manual_seed(0))
    one = small.run(dit, x)
    dit.attention = ulysses(sdpa, mesh)
    assert dit.ranks.world == half
    return difference(one, small.run(dit, x))


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    with torch.no_grad():
        found: dict[str, object] = {"memory": memory()} if "memory" in sys.argv else {}
        found |= {small.name: compare(small) for small in SMALL}
        found["mesh"] = on_a_mesh_of_two_dimensions()
    try:
        attention_named("ulysses").ranks.check_heads(dist.get_world_size() + 1)
    except FramePackError as fault:
        found["heads"] = str(fault)
    if dist.get_rank() == 0:
        sys.stdout.write(json.dumps(found) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
