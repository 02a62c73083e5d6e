"""From a run's newest state to one file: the whole model, or its LoRA."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.model_file import ModelFile
from ..checkpoints.writing import write
from ..models.backbones import POSITIONS
from .adapters import Adapted, write_lora
from .states import ABOUT, StateError, read_weights
from .trainees import weights_of

DIT = "dit."  # where the model stands in a trainee


def newest_of(run: Path) -> Path:
    """A run's newest whole state. Raises StateError where there is none."""
    found = sorted(p for p in (run / "states").glob("*") if p.name.isdigit() and (p / ABOUT).is_file())
    if not found:
        raise StateError(f"{run} has no finished state yet. Train for run.save_every steps or more.")
    return found[-1]


def trained_weights(run: Path) -> tuple[dict[str, Tensor], str]:
    """What a run has trained, by the model's own names, and a text of JSON on how. Raises StateError."""
    path = newest_of(run)
    about = json.loads((path / ABOUT).read_text(encoding="utf-8"))["run"]
    weights = {name.removeprefix(DIT): tensor for name, tensor in read_weights(path).items()}
    return weights, json.dumps({"run": about, "steps_done": int(path.name)})


def export_model(run: Path, base: Path, target: Path, dtype: torch.dtype = torch.bfloat16) -> int:
    """Write the base checkpoint with what a run has trained into a new file; returns how many tensors.

    Raises StateError without a state, CheckpointError where the file is there already.
    """
    trained, about = trained_weights(run)
    stated = {"framepack.training": about, POSITIONS: json.dumps(json.loads(about)["run"]["positions"])}
    file = ModelFile.open(base)
    held = weights_of(file, dtype) | {name: tensor.to(dtype) for name, tensor in trained.items()}
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in held.items()}
    write(target, layout, held.items(), file.stated | stated)
    return len(layout)


def export_lora(run: Path, adapters: dict[str, Adapted], target: Path, prefix: str) -> int:
    """Write the LoRA that a run has trained into a new file; returns how many tensors. Raises as `export_model`."""
    weights, about = trained_weights(run)
    return write_lora(target, adapters, weights, prefix, about)
