"""The memory of a whole run, said before its first step; a run that cannot fit is rejected with what would fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import TooLittleMemoryError
from ..packing.history import gather
from ..planning.plan import Section
from ..units import BASE
from .config import Config, Share, Stage
from .footprint import step_memory
from .loss import Batch
from .optimizers import AT_ONCE, state_bytes
from .parallel import world
from .step_data import FIRST_FRAME, longest, plan_of
from .trainees import blocks_of
from .trainer import Trainer

GB, MB = 1e9, 1e6


def said(num_bytes: int) -> str:
    """Bytes for people."""
    return f"{num_bytes / GB:.2f} GB" if num_bytes >= GB / 10 else f"{num_bytes / MB:.1f} MB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes of one process: weights; master copies and running means; optimizer state; and a step at its most."""

    weights: int
    copies: int
    optimizer: int
    step: int

    @property
    def peak(self) -> int:
        """All together."""
        return self.weights + self.copies + self.optimizer + self.step

    def __str__(self) -> str:
        return (
            f"peak memory {said(self.peak)}: weights {said(self.weights)}, copies {said(self.copies)}, optimizer "
            f"{said(self.optimizer)}, gradients and activations {said(self.step)}"
        )


def footprint_of(trainer: Trainer, config: Config, shards: int = 0) -> Footprint:
    """The footprint of the stage that takes most, with these settings for the trainer's own.

    `shards` are the processes that share the weights out; 0 for those that there are.
    """
    found = (_of_stage(trainer, config, stage, shards or world()) for stage in config.stage)
    return max(found, key=lambda each: each.peak)


def _of_stage(trainer: Trainer, config: Config, stage: Stage, shards: int) -> Footprint:
    trained = trainer.trained_by(stage)
    num = sum(p.numel() for p in trained.values())
    state, made = state_bytes(trained, stage.optimizer)
    narrow = config.model.compute == "bf16"
    gradients = sum(p.numel() * p.element_size() for p in trained.values())
    gathered = 2 * max(map(size_of, blocks_of(trainer.model.dit))) if shards > 1 else 0  # a block, and the next one
    copies = 4 * num * ((narrow and config.model.weights == "fp32") + bool(config.run.ema))
    twins = 8 * min(num, AT_ONCE) if narrow else 0  # float32 gradients, and weights where there is no master copy
    return Footprint(
        weights=size_of(trainer.model) // shards,
        copies=copies // shards,
        optimizer=state // shards,
        step=max(
            _largest_step(trainer, config, stage, shards) // config.run.sequence
            + (gradients // shards + gathered if shards > 1 else 0),
            (gradients + made + twins) // shards,
        ),
    )


def size_of(module: nn.Module) -> int:
    """Bytes of a module's weights."""
    return sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])


def _largest_step(trainer: Trainer, config: Config, stage: Stage, shards: int) -> int:
    """Forward and backward over the largest batch that the stage can draw."""
    with trainer.as_in(stage, config):
        work = largest_batch(trainer, config, stage, shards)
        return step_memory(trainer.model, *work, trainer.recompute, gradients=shards == 1)


def largest_batch(trainer: Trainer, config: Config, stage: Stage, shards: int) -> tuple[Batch, Mapping[str, Tensor]]:
    """The largest batch that a stage can draw, without values, and its words."""
    share, section, batch = max(
        (each for share in stage.mixture if share.weight for each in _batches(trainer, config, share, shards)),
        key=lambda each: each[2] * _tokens(trainer, each[0], each[1]),
    )
    height, width = trainer.clips.largest_grid(longest(share, trainer.clips))
    channels = trainer.clips.index.clips[0].shape[0]
    x = torch.empty(batch, channels, section.num_lat_frames, height, width, device="meta", dtype=config.model.dtype)
    timeline: dict[int | str, Tensor] = {i: x[:, :, :1] for i in section.known}
    sigma = torch.empty(batch, device="meta")
    noisy = Batch(noisy=x, sigma=sigma, history=gather(section, timeline, x), target=x.float(), section=section)
    return noisy, trainer.words([""] * batch)


def _batches(trainer: Trainer, config: Config, share: Share, shards: int) -> Iterator[tuple[Share, Section, int]]:
    """Each section of a share's longest plan, and how many clips of it are in memory at once."""
    each = (share.batch or config.run.batch) * config.run.sequence // shards
    sections = plan_of(share, longest(share, trainer.clips)).sections if share.schedule else (FIRST_FRAME,)
    for section in sections:
        yield share, section, min(config.run.at_once or each, each)


def _tokens(trainer: Trainer, share: Share, section: Section) -> int:
    grid = trainer.clips.largest_grid(longest(share, trainer.clips))
    made = trainer.geometry.num_tokens(BASE, section.num_lat_frames, *grid)
    return made + section.num_context_tokens(*grid, trainer.geometry.patch)


def available(device: torch.device, loaded: int) -> int | None:
    """Bytes that a run may take on a device; None where they are unknown. `loaded` bytes are in main memory already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().available + loaded


def check(trainer: Trainer, there: int | None) -> Footprint:
    """The run's footprint. Raises TooLittleMemoryError, with what would fit, where it needs more than is available."""
    found = footprint_of(trainer, trainer.config)
    if there is None or found.peak <= there:
        return found
    fitting = [name for name, other in _lighter(trainer.config) if footprint_of(trainer, other).peak <= there]
    otherwise = "Train a LoRA, use smaller pictures, or use a device with more memory."
    remedy = f"What would fit: {', or '.join(fitting)}." if fitting else otherwise
    raise TooLittleMemoryError(f"The run needs more than the {said(there)} available: {found}. {remedy}")


def _lighter(config: Config) -> Iterator[tuple[str, Config]]:
    """Settings that need less memory, each with the name that people set it by."""
    steps = [
        ("run.at_once = 1", replace(config, run=replace(config.run, at_once=1))),
        ("model.checkpointing = true", replace(config, model=replace(config.model, checkpointing=True))),
        ("model.weights = 'bf16'", replace(config, model=replace(config.model, weights="bf16"))),
        ("optimizer = 'adafactor'", _with_stages(config, optimizer="adafactor")),
        ("train = 'packing'", _with_stages(config, train="packing")),
    ]
    yield from (each for each in steps if each[1] != config)
    both = replace(steps[0][1], model=replace(config.model, checkpointing=True, weights="bf16"))
    yield "all of run.at_once = 1, model.checkpointing = true and model.weights = 'bf16'", both


def _with_stages(config: Config, **changes: str) -> Config:
    return replace(config, stage=tuple(replace(stage, **changes) for stage in config.stage))
