"""What is trained: a backbone with its packed history, behind one call for every backbone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checkpoints.fp8 import from_rows
from ..checkpoints.model_file import ModelFile, shapes_of
from ..errors import CheckpointError
from ..models.backbones import Backbone
from ..models.packed import PackedDiT
from ..packing.history import ContextGroup
from ..planning.plan import Section
from .config import Model
from .settings import ConfigError

HIGHEST = 1000  # the timestep of noise level 1


class Trainee(nn.Module):
    """A DiT as the loss calls it. Its parameters' names begin with ``dit.``.

    A backbone without a mask for its text sees the padding, which is zero. With `causal` history sees history only.
    """

    def __init__(self, dit: nn.Module, guidance: float = 10.0, causal: bool = False):
        super().__init__()
        self.dit, self.guidance, self.causal = dit, guidance, causal
        self.takes = inspect.signature(dit.forward).parameters.keys()

    def forward(
        self, x: Tensor, sigma: Tensor, words: Mapping[str, Tensor], section: Section, history: list[ContextGroup]
    ) -> Tensor:
        """x ``b c t h w`` noisy, sigma ``b``, words the model's arguments for the captions -> velocity like x."""
        more: dict[str, Any] = {n: value.to(sigma.device) for n, value in self.condition(words, len(sigma)).items()}
        if self.causal:
            more["causal_history"] = True
        return self.dit(x, sigma * HIGHEST, **more, positions=section.positions, history=history)

    def condition(self, words: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        """What the DiT takes of the words of so many captions, and the distilled guidance where it has one."""
        more = {name: value for name, value in words.items() if name != "attention_mask" or name in self.takes}
        if getattr(self.dit.spec, "guidance", False):
            more["guidance"] = torch.full((count,), self.guidance * HIGHEST)
        return more


def load(model: Model) -> tuple[Trainee, Backbone]:
    """Read a FramePack checkpoint to train it, and its backbone.

    Raises CheckpointError for another file, ConfigError for what the backbone cannot do.
    """
    file = ModelFile.open(model.path)
    if model.causal_history and "causal_history" not in inspect.signature(file.backbone.dit.forward).parameters:
        raise ConfigError(f"model.causal_history is not available for {file.backbone.name}. Set it to false.")
    return Trainee(_filled(file, model.dtype), model.guidance, model.causal_history), file.backbone


def dit_of(path: Path | str, dtype: torch.dtype) -> PackedDiT:
    """The DiT of a FramePack checkpoint, to be run. Raises CheckpointError for another file."""
    return _filled(ModelFile.open(path), dtype).eval().requires_grad_(False)


def _filled(file: ModelFile, dtype: torch.dtype) -> PackedDiT:
    dit = file.backbone.dit(file.spec, device="meta", dtype=dtype)
    dit.load_state_dict(weights_of(file, dtype), assign=True)
    return dit


def weights_of(file: ModelFile, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's weights in a dtype; scaled float8 is spread out. Tensors are the caller's own.

    Raises CheckpointError for weights in a format of the host's own.
    """
    quantization = file.quantization.as_scales()
    if quantization.formats:
        raise CheckpointError(
            f"{file.checkpoint.name} is quantized ({', '.join(sorted(quantization.names))}) and cannot be trained. Use "
            "a bf16 or fp8 file of this model."
        )
    tensors, found = file.checkpoint.tensors(), {}
    for key in shapes_of(file.spec):
        scales = quantization.scales.get(key.removesuffix(".weight"))
        wide = from_rows(tensors[key], tensors[scales]) if scales else tensors[key]
        found[key] = wide.to(dtype, copy=True)
    return found


def blocks_of(dit: nn.Module) -> list[nn.Module]:
    """A backbone's blocks, in order."""
    return [block for name in dit.BLOCKS for block in getattr(dit, name)]


class Recompute:
    """Recomputes a backbone's blocks in the backward pass, instead of keeping what they made (Chen et al. 2016).

    It does so inside the context that `within` makes, since the backward pass leaves that of the forward pass.
    """

    def __init__(self, dit: nn.Module, on: bool):
        self.on = on
        self.within: Callable[[], AbstractContextManager[Any]] = nullcontext
        for block in blocks_of(dit):
            block.forward = partial(self._run, block.forward)

    def _run(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not (self.on and torch.is_grad_enabled()):
            return plain(*args, **kwargs)
        contexts = nullcontext(), self.within()
        return checkpoint(plain, *args, use_reentrant=False, context_fn=lambda: contexts, **kwargs)
