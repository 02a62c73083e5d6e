"""LoRA: low-rank adapters beside frozen linear layers (Hu et al. 2021), and their files.

A file's names are peft's, after a prefix (``transformer.NAME.lora_A.weight``). Each adapter's scale, alpha over
rank, is written into its B, so that every loader gives the same result whatever it assumes of alpha.

Dims: o outer, i inner channels, r rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.files import Checkpoint
from ..checkpoints.fp8 import from_rows, to_rows
from ..checkpoints.lora_check import check_lora
from ..checkpoints.writing import write
from .config import Lora
from .settings import ConfigError


class _Float8Product(torch.autograd.Function):
    """x times a frozen float8 weight, which is spread out for each product and never kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scales)
        return F.linear(x, from_rows(weight, scales).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        weight, scales = ctx.saved_tensors
        return grad @ from_rows(weight, scales).to(grad.dtype), None, None


class Adapted(nn.Module):
    """A frozen linear layer plus ``B A x`` times a scale. B starts at zero, so at first nothing changes."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float, source: torch.Generator, fp8: bool = False):
        super().__init__()
        dtype, device = layer.weight.dtype, layer.weight.device
        self.scale, self.rank = alpha / rank, rank
        weight, scales = to_rows(layer.weight.detach()) if fp8 else (layer.weight.detach(), None)
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
        self.lora_A = nn.Linear(layer.in_features, rank, bias=False, dtype=dtype, device=device)
        self.lora_B = nn.Linear(rank, layer.out_features, bias=False, dtype=dtype, device=device)
        drawn = torch.empty(rank, layer.in_features)
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=source)
        with torch.no_grad():
            self.lora_A.weight.copy_(drawn)
            self.lora_B.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """x ``... i`` -> ``... o``."""
        if self.scales is None:
            out = F.linear(x, self.weight, self.bias)
        else:
            out = _Float8Product.apply(x, self.weight, self.scales)
            out = out if self.bias is None else out + self.bias
        return out + self.lora_B(self.lora_A(x)) * self.scale


def adapt(dit: nn.Module, lora: Lora, default: re.Pattern[str], seed: int) -> dict[str, Adapted]:
    """Put adapters beside a model's linear layers and freeze all else; the adapters by their layers' names.

    Without targets, `default` says which weights (``NAME.weight``) have one. Raises ConfigError where none has.
    """
    source = torch.Generator().manual_seed(seed)
    dit.requires_grad_(False)
    found = {}
    linear = {name: module for name, module in dit.named_modules() if isinstance(module, nn.Linear)}
    for name, layer in linear.items():
        wanted = re.search(lora.targets, name) if lora.targets else default.fullmatch(f"{name}.weight")
        if wanted:
            rank = _for(name, lora.rank_pattern, lora.rank)
            alpha = _for(name, lora.alpha_pattern, lora.alpha)
            found[name] = Adapted(layer, int(rank), alpha, source, lora.base == "fp8")
            dit.set_submodule(name, found[name])
    if not found:
        raise ConfigError(f"lora.targets {lora.targets!r:.60} matches no linear layer, such as {next(iter(linear))}.")
    return found


def _for(name: str, patterns: Mapping[str, float], otherwise: float) -> float:
    """The value of the first pattern that a layer's name ends with, as peft has it."""
    return next((v for pattern, v in patterns.items() if re.match(rf"(.*\.)?({pattern})$", name)), otherwise)


def write_lora(
    path: Path, adapters: Mapping[str, Adapted], weights: Mapping[str, Tensor], prefix: str, about: str = ""
) -> int:
    """Write adapters to a new file; `weights` are theirs by ``NAME.lora_A.weight``. Returns how many tensors.

    Raises CheckpointError where the file exists already.
    """
    tensors = {}
    for name, adapter in adapters.items():
        tensors[f"{prefix}{name}.lora_A.weight"] = weights[f"{name}.lora_A.weight"].float()
        tensors[f"{prefix}{name}.lora_B.weight"] = weights[f"{name}.lora_B.weight"].float() * adapter.scale
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    ranks = {name: adapter.rank for name, adapter in adapters.items()}
    most = max(ranks.values(), key=list(ranks.values()).count)
    other = {name: rank for name, rank in ranks.items() if rank != most}
    config = {"r": most, "lora_alpha": most, "rank_pattern": other, "alpha_pattern": other}
    config |= {"target_modules": sorted(ranks)}
    stated = {f"{prefix}{key}": value for key, value in config.items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(stated), "framepack.training": about}
    write(path, layout, tensors.items(), metadata)
    return len(tensors)


@torch.no_grad()
def merge(dit: nn.Module, path: Path) -> int:
    """Add the LoRA of a file to a model's own weights; returns how many layers changed. Raises CheckpointError."""
    file = Checkpoint.open(path)
    shapes = {key: tuple(value.shape) for key, value in dit.state_dict().items()}
    lora = check_lora(file.name, file.tensors(), file.metadata, shapes)
    for name in sorted(lora.changed):
        up, down = lora.tensors[f"{name}.lora_up.weight"], lora.tensors[f"{name}.lora_down.weight"]
        alpha = lora.tensors.get(f"{name}.alpha")
        scale = 1.0 if alpha is None else float(alpha) / len(down)
        weight = dit.get_submodule(name).weight
        weight += scale * (up.float() @ down.float()).to(weight)
    return len(lora.changed)
