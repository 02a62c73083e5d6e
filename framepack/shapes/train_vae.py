"""Train the built-in VAE: single frames first, then clips that grow, the wide world, and last the decoder alone.

    python -m framepack.shapes.train_vae OUT.safetensors [--from VAE.safetensors] [--decoder]

`--from` trains a VAE further, with the stages of the wide world; with `--decoder` only its decoder, so that its
latents, and a DiT that was trained on them, stay what they are.

The first stage mixes in colour fields: where every latent pixel has its own colour, the code for colour is found
within a hundred steps, while on shapes alone the reconstruction stays at the background for a thousand.
Going from frames to clips, every weight that looks into the past starts at zero and the layers that merge or
split frames start as copies, so that a clip begins where single frames ended. Loss: squared error with a
little absolute error, and a light Kullback-Leibler term that keeps the latents smooth.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import time
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import FramePackError
from ..vae.wan import WanVAE
from . import builtin
from .budget import Budget
from .rendering import draw
from .wide import sample_away, sample_wide
from .world import SIZE, Scene, sample_scene

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run of steps on clips of one length; the learning rate falls by cosine to a twentieth.

    `fields` of a batch are colour fields instead of shapes, `wide` of the rest are of the wide
    world. With `decoder` the encoder stays as it is.
    """

    num_pix_frames: int
    batch: int
    steps: int
    rate: float
    fields: int = 0
    wide: float = 0.0
    decoder: bool = False

    @property
    def frames(self) -> int:
        """Frames of a step, which tell how long it takes."""
        return self.batch * self.num_pix_frames


STAGES = (
    Stage(num_pix_frames=1, batch=16, steps=350, rate=2e-3, fields=8),
    Stage(num_pix_frames=1, batch=16, steps=600, rate=1.2e-3, fields=3),
    Stage(num_pix_frames=5, batch=6, steps=350, rate=1e-3, fields=1),
    Stage(num_pix_frames=13, batch=3, steps=900, rate=1e-3),
    Stage(num_pix_frames=13, batch=4, steps=2500, rate=1e-3, fields=1, wide=0.75),
    Stage(num_pix_frames=13, batch=4, steps=2500, rate=1e-3, wide=0.5, decoder=True),
)
FURTHER, DECODER = STAGES[-2:], STAGES[-1:]  # what trains a VAE further, and what leaves its latents alone
DECODING = ("conv2.", "decoder.")  # the weights between latents and pixels
WARMUP = 50
TRIED = 25  # steps after which it is known how long a step takes
FIRST = 10  # steps at the beginning that take longer
MEASURED = 32  # clips of each world on which two VAEs are compared
GOALS = {"plain": 30.0, "wide": 28.0}  # dB; down to them a VAE may lose in one world what it gains in the other
KL_WEIGHT = 1e-5
ABSOLUTE_WEIGHT = 0.1


@torch.no_grad()
def init_weights(vae: WanVAE) -> None:
    """Set up a fresh VAE: variance kept, residual blocks as shortcuts, every frame coded as a single one."""
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d):
            continue
        module.weight.zero_()
        module.bias.zero_()
        if name.endswith("time_conv"):
            eye = torch.eye(module.in_channels)
            module.weight[:, :, -1, 0, 0] = eye.repeat(module.out_channels // module.in_channels, 1)
        elif not name.endswith("residual.6"):
            present = module.weight if module.weight.ndim == 4 else module.weight[:, :, -1]
            present.normal_(0, present[0].numel() ** -0.5)
    vae.conv1.bias[vae.spec.latent_channels :] = -8  # log variance: hardly any noise at first


def channels_last(vae: WanVAE) -> None:
    """Lay the weights out with channels innermost: narrow convolutions run about twice as fast on a CPU."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in vae.parameters():
        if weight.ndim in layouts:
            weight.data = weight.data.contiguous(memory_format=layouts[weight.ndim])


def colour_field(rng: random.Random, num_pix_frames: int) -> Tensor:
    """A still picture of smoothly changing colour, ``3 t h w`` in [0, 1]."""
    corners = torch.tensor([rng.random() for _ in range(3 * 6 * 6)]).view(1, 3, 6, 6)
    field = F.interpolate(corners, SIZE, mode="bicubic").clamp(0, 1)
    return field[0, :, None].expand(-1, num_pix_frames, -1, -1)


def sample_for(rng: random.Random, stage: Stage) -> Scene:
    """A scene for a stage."""
    if not stage.wide or rng.random() > stage.wide:
        return sample_scene(rng)
    return sample_away(rng) if rng.random() < 0.15 else sample_wide(rng)


def batch_of_clips(rng: random.Random, stage: Stage, device: torch.device | str = "cpu") -> Tensor:
    """Pixels ``b 3 t h w`` in [-1, 1]; each clip starts anywhere in its scene's first ten seconds."""
    scenes = [sample_for(rng, stage) for _ in range(stage.batch - stage.fields)]
    clips = draw(scenes, [rng.randrange(300) for _ in scenes], stage.num_pix_frames, device)
    if stage.fields:
        fields = torch.stack([colour_field(rng, stage.num_pix_frames) for _ in range(stage.fields)])
        clips = torch.cat([fields.to(device), clips])
    clips = clips * 2 - 1
    return clips.contiguous(memory_format=torch.channels_last_3d) if clips.device.type == "cpu" else clips


def losses(vae: WanVAE, pixels: Tensor, noise: torch.Generator, decoder: bool = False) -> tuple[Tensor, Tensor]:
    """The loss to minimise, of the decoder alone or of all, and the mean squared error on pixels in [0, 1]."""
    with torch.set_grad_enabled(not decoder):
        mean, log_var = vae.posterior(pixels)
    log_var = log_var.clamp(-20, 10)
    drawn = torch.randn(mean.shape, generator=noise, device=noise.device)
    error = (vae.decode(mean + torch.exp(log_var / 2) * drawn) - pixels) / 2
    kl = (mean.square() + log_var.exp() - 1 - log_var).mean() / 2
    squared = error.square().mean()
    return squared + ABSOLUTE_WEIGHT * error.abs().mean() + KL_WEIGHT * kl, squared


def psnr(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error on [0, 1]."""
    return -10 * math.log10(squared_error)


@torch.no_grad()
def measured(vae: WanVAE) -> dict[str, float]:
    """Decibels on clips that training never sees, of the plain and of the wide world; NaN where it is not finite."""
    device, found = next(vae.parameters()).device, {}
    for world, wide in (("plain", 0.0), ("wide", 1.0)):
        stage = replace(STAGES[-1], batch=MEASURED, wide=wide)
        pixels = batch_of_clips(random.Random("measured"), stage, device)
        squared = ((vae.decode(vae.encode(pixels)).clamp(-1, 1) - pixels) / 2).square().mean().item()
        found[world] = psnr(squared) if math.isfinite(squared) else math.nan
    return found


def better(trained: dict[str, float], before: dict[str, float]) -> bool:
    """Is a VAE better in some world, and in none worse than before and than the world's goal?"""
    kept = all(trained[world] >= min(before[world], goal) for world, goal in GOALS.items())
    return kept and any(trained[world] > before[world] for world in GOALS)


class VaeRun:
    """A training of the VAE, with a resumable state beside the result; the loss curve goes into a .json."""

    def __init__(self, out: Path, state: Path, stages: tuple[Stage, ...], seed: int, device: str, start: Path | None):
        self.out, self.state, self.stages, self.seed, self.device = out, state, stages, seed, device
        torch.manual_seed(seed)
        self.vae = WanVAE()
        init_weights(self.vae)
        if start:
            self.vae.load_state_dict(load_file(start))
        if device == "cpu":
            channels_last(self.vae)
        self.vae.to(device)
        self.optimizer = torch.optim.AdamW(self.vae.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)
        self.before = read_note(start) if start else None
        self.done, self.curve = 0, []
        if state.exists():
            kept = torch.load(state, weights_only=True, map_location=device)
            self.vae.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.done, self.curve = kept["step"], kept["curve"]
            self.stages = tuple(map(with_steps, stages, kept["steps"]))

    @property
    def total(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def made(self) -> list[int]:
        """Steps that are done of each stage."""
        ends = accumulate(stage.steps for stage in self.stages)
        return [
            min(max(self.done - end + stage.steps, 0), stage.steps)
            for stage, end in zip(self.stages, ends, strict=True)
        ]

    def cut(self, budget: Budget, each: float) -> None:
        """Shorten what is left of all stages alike to what fits, where a step takes `each` seconds now."""
        made = self.made()
        left = [stage.steps - steps for stage, steps in zip(self.stages, made, strict=True)]
        work = sum(stage.frames * steps for stage, steps in zip(self.stages, left, strict=True))
        fits = budget.steps(work, each / self.locate(self.done - 1)[0].frames)
        steps = [before + math.ceil(after * fits / max(work, 1)) for before, after in zip(made, left, strict=True)]
        self.stages = tuple(map(with_steps, self.stages, steps))

    def locate(self, step: int) -> tuple[Stage, float]:
        """The stage that a step belongs to, and how far through it the step lies, in [0, 1)."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step / stage.steps
            step -= stage.steps
        raise IndexError("past the last stage")

    def step(self) -> Tensor:
        """One step; its mean squared error."""
        stage, progress = self.locate(self.done)
        rate = stage.rate * (0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, (progress * stage.steps + 1) / WARMUP)
        for name, weight in self.vae.named_parameters():
            weight.requires_grad_(not stage.decoder or name.startswith(DECODING))
        pixels = batch_of_clips(random.Random(f"{self.seed}/{self.done}"), stage, self.device)
        loss, squared = losses(self.vae, pixels, torch.Generator(self.device).manual_seed(self.done), stage.decoder)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self.optimizer.step()
        self.done += 1
        return squared.detach()

    def run(self, budget: Budget, log_every: int = 25) -> bool:
        """Train to the end or to the deadline; True where it is complete."""
        running, begun, started = [], self.done, 0.0
        while self.done < self.total and not budget.over:
            running.append(self.step())
            if self.done - begun == FIRST:
                running[-1].item()  # waits for the device
                started = time.monotonic()
            if self.done - begun == TRIED:
                running[-1].item()
                each = (time.monotonic() - started) / (TRIED - FIRST)
                self.cut(budget, each)
                log.info("VAE: %.3f s a step, %d steps", each, self.total)
            if self.done % log_every == 0 or self.done == self.total:
                squared = torch.stack(running).mean().item()
                if not math.isfinite(squared):
                    raise FramePackError(f"The VAE's loss is {squared} by step {self.done}. Use a lower rate.")
                db = psnr(squared)
                self.curve.append([self.done, self.locate(self.done - 1)[0].num_pix_frames, round(db, 2)])
                log.info("VAE: step %d of %d, %.2f dB", self.done, self.total, db)
                running = []
            if self.done % 200 == 0:
                self.save()
        self.save()
        return self.done >= self.total

    def save(self) -> None:
        """Write the state, and the weights as they are."""
        kept = {"model": self.vae.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.done}
        kept |= {"curve": self.curve, "steps": [stage.steps for stage in self.stages]}
        self.state.parent.mkdir(parents=True, exist_ok=True)
        torch.save(kept, self.state.with_suffix(".tmp"))
        self.state.with_suffix(".tmp").replace(self.state)
        note = {"seed": self.seed, "stages": [asdict(stage) for stage in self.stages], "steps_done": self.done}
        if self.before:
            note["before"] = self.before
        weights = {k: v.cpu().contiguous() for k, v in self.vae.state_dict().items()}
        save_file(weights, self.out, metadata={"training": json.dumps(note)})
        self.out.with_suffix(".json").write_text(json.dumps({**note, "curve": self.curve}), "utf-8")


def read_note(path: Path) -> dict[str, Any]:
    """How a VAE's file was trained, as the file itself says."""
    return json.loads(builtin.read_metadata(path).get("training", "{}"))


def with_steps(stage: Stage, steps: int) -> Stage:
    """The stage with other steps."""
    return replace(stage, steps=steps)


def enlarged(stage: Stage, times: int) -> Stage:
    """The stage with a batch so many times as large."""
    return replace(stage, batch=stage.batch * times, fields=stage.fields * times)


def stages_for(start: Path | None, decoder: bool = False) -> tuple[Stage, ...]:
    """The stages from scratch, of a VAE that is trained further, or of its decoder alone."""
    if not start:
        return STAGES
    return DECODER if decoder else FURTHER


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path("vae-state.pt"))
    parser.add_argument("--from", dest="start", type=Path, help="a VAE to train further")
    parser.add_argument("--decoder", action="store_true", help="the decoder alone")
    parser.add_argument("--device", default="cpu", help="such as cuda")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stages = stages_for(args.start, args.decoder)
    VaeRun(args.out, args.state, stages, args.seed, args.device, args.start).run(Budget())


if __name__ == "__main__":
    main()
