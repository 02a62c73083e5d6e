"""A job: a plan with all that its sampling needs, in one file, so that another process or machine can do it.

A safetensors file. Its metadata holds the plan, the model's path, the prompts and the settings as JSON; its tensors are
the prompts' conditionings (``prompt.0.context``), the latents from outside by slot (``slot.start``), normalised, and
what turns normalised latents into raw ones. Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import CheckpointError, FramePackError
from .packing.codebook import Codebook
from .packing.treatment import UNTREATED, Treatment
from .planning.plan import Plan
from .planning.prompts import Prompt, from_data, to_data
from .sampling.denoiser import Condition
from .sampling.guidance import UNGUIDED, Guidance
from .sampling.staged import solver_named

FORMAT = "framepack job 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """`model` is a checkpoint's path, `prompts` a conditioning for each prompt of the plan; None is the sampler's own.

    `treatment` is what is done to history, its codebook of raw latents.
    `slots` are normalised latents ``1 c t h w`` from outside; raw latents are normalised ones times `scale` plus
    `shift`, both ``c``.
    """

    plan: Plan
    model: str
    prompts: Mapping[Prompt | None, Condition]
    negative: Condition
    slots: Mapping[str, Tensor]
    scale: Tensor
    shift: Tensor
    seed: int = 0
    steps: int = 25
    sigmas: Tensor | None = None
    solver: str = "euler"
    guidance: Guidance = UNGUIDED
    treatment: Treatment = UNTREATED

    def save(self, path: Path) -> None:
        """Write the file."""
        prompts = list(self.prompts)
        tensors = {"scale": self.scale, "shift": self.shift}
        tensors |= {} if self.sigmas is None else {"sigmas": self.sigmas}
        tensors |= {f"slot.{name}": latent for name, latent in self.slots.items()}
        for where, condition in [
            ("negative", self.negative),
            *((f"prompt.{i}", self.prompts[p]) for i, p in enumerate(prompts)),
        ]:
            tensors |= {f"{where}.{name}": value for name, value in condition.items()}
        stated = {
            "model": self.model,
            "prompts": list(map(to_data, prompts)),
            "seed": self.seed,
            "steps": self.steps,
            "solver": self.solver,
            "guidance": asdict(self.guidance),
        }
        book = self.treatment.codebook
        if self.treatment != UNTREATED:
            names = ("match", "strength", "noise", "noise_above", "causal")
            stated["treatment"] = {name: getattr(self.treatment, name) for name in names}
        if book is not None:
            tensors["codebook"] = book.centroids
            stated["codebook"] = {"latent_format": book.latent_format, "provenance": dict(book.provenance)}
        metadata = {"format": FORMAT, "plan": self.plan.to_json(), "job": json.dumps(stated)}
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path, metadata)

    @classmethod
    def load(cls, path: Path) -> JobFile:
        """Read a file that `save` wrote. Raises CheckpointError for any other, PlanError for its plan."""
        if not path.is_file():
            raise CheckpointError(f"There is no job file {path}. Write one with the FramePack Save Job node.")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            tensors = load_file(path)
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path.name} is no job file. Write one with the FramePack Save Job node.")
            return cls._of(metadata, tensors)
        except FramePackError:
            raise
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as fault:
            raise CheckpointError(
                f"{path.name} does not read as a job file ({fault!r}). Write it again with the FramePack Save Job node."
            ) from fault

    @classmethod
    def _of(cls, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> JobFile:
        stated = json.loads(metadata["job"])
        solver_named(str(stated["solver"]))  # or it is unknown
        prompts = map(from_data, stated["prompts"])
        return cls(
            plan=Plan.from_json(metadata["plan"]),
            model=str(stated["model"]),
            prompts={prompt: _under(tensors, f"prompt.{i}.") for i, prompt in enumerate(prompts)},
            negative=_under(tensors, "negative."),
            slots=_under(tensors, "slot."),
            scale=tensors["scale"],
            shift=tensors["shift"],
            sigmas=tensors.get("sigmas"),
            seed=int(stated["seed"]),
            steps=int(stated["steps"]),
            solver=stated["solver"],
            guidance=Guidance(**stated["guidance"]),
            treatment=_treatment(stated, tensors),
        )

    def anchors(self) -> dict[int | str, Tensor]:
        """Normalised latents ``1 c 1 h w`` by latent frame, and by slot where they are context only."""
        placed = {
            frame: self.slots[anchor.slot][:, :, i : i + 1]
            for anchor in self.plan.anchors
            for i, frame in enumerate(anchor.frames)
        }
        return {**self.slots, **placed}

    def normalised(self, latents: Tensor) -> Tensor:
        """Raw latents ``b c t h w`` as the model has them."""
        scale, shift = (value.view(1, -1, 1, 1, 1).to(latents) for value in (self.scale, self.shift))
        return (latents - shift) / scale

    def raw(self, latents: Tensor) -> Tensor:
        """Normalised latents ``b c t h w`` as a VAE takes them."""
        scale, shift = (value.view(1, -1, 1, 1, 1).to(latents) for value in (self.scale, self.shift))
        return latents * scale + shift

    def save_latents(self, latents: Tensor, path: Path) -> Tensor:
        """Write normalised latents ``b c t h w`` raw, as ComfyUI's LoadLatent reads them; the raw latents.

        A file appears complete or not at all.
        """
        raw, part = self.raw(latents).contiguous(), path.with_name(path.name + ".part")
        save_file({"latent_tensor": raw, "latent_format_version_0": torch.tensor([])}, part)
        os.replace(part, path)
        return raw

    @property
    def like(self) -> Tensor:
        """Batch, channels and grid of the latents, ``1 c 1 h w``."""
        grid = self.plan.geometry.latent_grid(self.plan.height or 0, self.plan.width or 0)
        return torch.empty(1, len(self.scale), 1, *grid)


def _treatment(stated: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Treatment:
    """What is done to history. Raises FramePackError for values out of bounds."""
    book = Codebook(centroids=tensors["codebook"], **stated["codebook"]) if "codebook" in stated else None
    return Treatment(codebook=book, **stated.get("treatment", {}))


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
