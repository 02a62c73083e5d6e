"""What a run that makes the built-in model is: where, from what, on what, and how long each stage may take."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .budget import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A run: where it is, what it starts from, and on what."""

    folder: Path
    start: Path | None
    device: str
    budget: Budget
    stage_seconds: float
    discrete: bool = False
    decoder: bool = False
    share: float = 1.0
    seed: int = 0
    target: Path | None = None
    vae_seconds: float | None = None
    encoding_seconds: float | None = None

    @property
    def on_gpu(self) -> bool:
        """Does it run on a GPU?"""
        return torch.device(self.device).type == "cuda"

    @property
    def out(self) -> Path:
        """Where the model's files go."""
        return self.target or self.folder / ("model_discrete" if self.discrete else "model")

    def until(self, share: float, seconds: float | None = None) -> Budget:
        """The budget of a stage: so many seconds or a share of a run that is cut to fit, or the stage's own minutes."""
        if self.budget.fit:
            most = share * max(self.budget.left, 1) if seconds is None else seconds
            return replace(self.budget, deadline=time.monotonic() + most)
        return Budget.lasting(self.stage_seconds)
