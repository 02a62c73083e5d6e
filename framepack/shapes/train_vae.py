"""Train the built-in VAE: single frames first, then clips that grow.

    python -m framepack.shapes.train_vae OUT.safetensors

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
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..vae.wan import WanVAE
from .world import SIZE, render, sample_scene

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run of steps on clips of one length; the learning rate falls by cosine to a twentieth.

    `fields` of a batch are colour fields instead of shapes.
    """

    num_pix_frames: int
    batch: int
    steps: int
    rate: float
    fields: int = 0


STAGES = (
    Stage(num_pix_frames=1, batch=16, steps=350, rate=2e-3, fields=8),
    Stage(num_pix_frames=1, batch=16, steps=600, rate=1.2e-3, fields=3),
    Stage(num_pix_frames=5, batch=6, steps=350, rate=1e-3, fields=1),
    Stage(num_pix_frames=13, batch=3, steps=900, rate=1e-3),
)
WARMUP = 50
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


def batch_of_clips(rng: random.Random, stage: Stage) -> Tensor:
    """Pixels ``b 3 t h w`` in [-1, 1]; each clip starts anywhere in its scene's first ten seconds."""
    clips = [colour_field(rng, stage.num_pix_frames) for _ in range(stage.fields)]
    for _ in range(stage.batch - stage.fields):
        first = rng.randrange(300)
        clips.append(render(sample_scene(rng), range(first, first + stage.num_pix_frames)))
    return (torch.stack(clips) * 2 - 1).contiguous(memory_format=torch.channels_last_3d)


def losses(vae: WanVAE, pixels: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """The loss to minimise and the mean squared error on pixels in [0, 1]."""
    mean, log_var = vae.posterior(pixels)
    log_var = log_var.clamp(-20, 10)
    latents = mean + torch.exp(log_var / 2) * torch.randn(mean.shape, generator=noise)
    error = (vae.decode(latents) - pixels) / 2
    kl = (mean.square() + log_var.exp() - 1 - log_var).mean() / 2
    squared = error.square().mean()
    return squared + ABSOLUTE_WEIGHT * error.abs().mean() + KL_WEIGHT * kl, squared


def psnr(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error on [0, 1]."""
    return -10 * math.log10(squared_error)


def locate(step: int) -> tuple[Stage, float]:
    """The stage that a step belongs to, and how far through it the step lies, in [0, 1)."""
    for stage in STAGES:
        if step < stage.steps:
            return stage, step / stage.steps
        step -= stage.steps
    raise IndexError("past the last stage")


def train(out: Path, seed: int, state: Path, log_every: int = 25) -> None:
    """Run every stage, with a resumable state beside the result; the loss curve goes into a .json."""
    torch.manual_seed(seed)
    vae = WanVAE()
    init_weights(vae)
    channels_last(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)
    done, curve = 0, []
    if state.exists():
        kept = torch.load(state, weights_only=True)
        vae.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        done, curve = kept["step"], kept["curve"]
    total, started, running = sum(s.steps for s in STAGES), time.time(), []
    for step in range(done, total):
        stage, progress = locate(step)
        rate = stage.rate * (0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2)
        rate *= min(1.0, (progress * stage.steps + 1) / WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rng = random.Random(f"{seed}/{step}")
        loss, squared = losses(vae, batch_of_clips(rng, stage), torch.Generator().manual_seed(step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        running.append(squared.item())
        if (step + 1) % log_every == 0 or step + 1 == total:
            db = psnr(sum(running) / len(running))
            curve.append([step + 1, stage.num_pix_frames, round(db, 2)])
            log.info("step %d, %d frames, %.2f dB, %.0f s", step + 1, stage.num_pix_frames, db, time.time() - started)
            running = []
        if (step + 1) % 50 == 0 or step + 1 == total:
            kept = {"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1, "curve": curve}
            torch.save(kept, state.with_suffix(".tmp"))
            state.with_suffix(".tmp").replace(state)
    note = {"seed": seed, "stages": [asdict(s) for s in STAGES]}
    save_file({k: v.contiguous() for k, v in vae.state_dict().items()}, out, metadata={"training": json.dumps(note)})
    out.with_suffix(".json").write_text(json.dumps({**note, "curve": curve}), "utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path("vae-state.pt"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(args.out, args.seed, args.state)


if __name__ == "__main__":
    main()
