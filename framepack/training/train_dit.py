"""Train the built-in DiT and its text encoder on latents of the shapes' world.

    python -m framepack.training.train_dit LATENTS OUT_FOLDER --steps 7000

Each step draws one section of one plan, the same planner's that generation uses, and a batch of clips for it: the
clips' latents fill the section's context, the section's own latents are noised and the model predicts the
velocity. Noise levels follow Flux's dynamic shift (paper section 4.2). Latents of history, but for the first
frame, get a little noise of their own, since in generation they are not perfect either.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..models.hunyuan import HunyuanDiT, HunyuanSpec
from ..models.text import TextEncoder, Tokenizer
from ..packing.history import gather
from ..plan import Plan, Section
from ..sampling.sigmas import dynamic_shift
from ..schedule import parse
from ..sections import make_plan
from .encode import scene_of
from .shapes import CIRCUMRADIUS, COLOURS, DIRECTIONS, caption

log = logging.getLogger(__name__)
WORDS = (
    *COLOURS,
    *CIRCUMRADIUS,
    *DIRECTIONS,
    *("slowly", "quickly", "a", "moves", "moving", "to", "the", "on", "and", "turns", "turning"),
    *("plain", "graded", "background"),
)
SAVE_EVERY = 250  # steps
NUM_TOKENS = 16  # the longest caption has 14 words


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a training run is made of."""

    steps: int = 8000
    batch: int = 16
    rate: float = 1.2e-3
    warmup: int = 200
    decay: float = 0.999  # of the running mean of the weights
    drop_caption: float = 0.1
    history_noise: float = 0.12
    seed: int = 0


# (schedule, latent frames, share of the steps); 37 latent frames are five seconds.
MIXTURE = (
    ("f1k1_x_g9_f1k1f2k2f16k4_td", 37, 0.58),
    ("f1k1_x_g9_f1k1f2k2f16k4_td", 47, 0.08),
    ("td_f16k4f2k2f1k1_g9", 47, 0.10),
    ("f1k1_x_f16k4f2k2f1k1_g9", 47, 0.06),
    ("td_f16k4f2k2f1k1_g9_x_f1k1", 37, 0.10),
    ("", 1, 0.08),  # the first frame from text alone
)


@cache
def plan_of(schedule: str, num_lat_frames: int) -> Plan:
    """A plan of the mixture; without a schedule, one whose only section makes the first frame."""
    if schedule:
        return make_plan(parse(schedule), num_lat_frames=num_lat_frames)
    return make_plan(parse("td_f16k4f2k2f1k1_g9"), num_lat_frames=10, start=False)


def draw_section(rng: random.Random) -> Section:
    """A section of a plan of the mixture."""
    schedule, length, _ = rng.choices(MIXTURE, [share for *_, share in MIXTURE])[0]
    sections = plan_of(schedule, length).sections
    return rng.choice(sections) if schedule else sections[0]


class LatentClips:
    """The shards in a folder, normalised per channel; `refresh` takes in what has been added."""

    def __init__(self, folder: Path):
        self.folder, self.seen = folder, set()
        self.clips, self.seeds = torch.empty(0), []
        self.mean = self.std = None
        self.refresh()

    def refresh(self) -> None:
        """Read new shards. The first read fixes mean and deviation, ``1 c 1 1 1``."""
        new = sorted(set(self.folder.glob("*.safetensors")) - self.seen)
        if not new:
            return
        shards = [load_file(path) for path in new]
        raw = torch.cat([s["latents"] for s in shards])
        if self.mean is None:
            self.mean = raw.mean((0, 2, 3, 4), keepdim=True)
            self.std = raw.std((0, 2, 3, 4), keepdim=True)
        clips = (raw - self.mean) / self.std
        self.clips = torch.cat([self.clips, clips]) if self.seen else clips
        self.seeds += [int(seed) for s in shards for seed in s["seeds"]]
        self.seen |= set(new)

    def draw(self, rng: random.Random, batch: int) -> tuple[Tensor, list[str]]:
        """Latents ``b c t h w`` and captions, each in a wording drawn anew."""
        picked = [rng.randrange(len(self.seeds)) for _ in range(batch)]
        scenes = [replace(scene_of(self.seeds[i]), wording=rng.randrange(3)) for i in picked]
        return self.clips[picked], [caption(scene) for scene in scenes]


class Trainee(nn.Module):
    """DiT and text encoder, trained together."""

    def __init__(self, spec: HunyuanSpec, tokenizer: Tokenizer, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.tokenizer = tokenizer
        self.text = TextEncoder(len(tokenizer.words), tokenizer.num_tokens, spec.text_dim)
        self.dit = HunyuanDiT(spec)
        self.dit.init_weights()

    def forward(self, x: Tensor, sigma: Tensor, captions: list[str], section: Section, history: list) -> Tensor:
        """x ``b c t h w`` noisy, sigma ``b`` -> velocity like x."""
        context, pooled = self.text(torch.tensor([self.tokenizer(c) for c in captions]))
        return self.dit(x, sigma * 1000, context, pooled, positions=section.positions, history=history)


def loss_of(model: Trainee, clips: Tensor, captions: list[str], section: Section, recipe: Recipe) -> Tensor:
    """Mean squared error of the velocity over one batch."""
    b = clips.shape[0]
    clean = torch.cat([clips[:, :, start:stop] for start, stop in section.makes], 2)
    strength = torch.rand(b, 1, 1, 1, 1) * recipe.history_noise
    seen = clips + strength * torch.randn_like(clips)
    timeline = {i: (clips if i == 0 else seen)[:, :, i : i + 1] for i in range(clips.shape[2])}
    history = gather(section, timeline, clean)
    noise, t = torch.randn_like(clean), (torch.arange(b) + torch.rand(b)) / b
    shift = dynamic_shift(clean.shape[2] * clean.shape[3] * clean.shape[4] // 4)
    sigma = shift * t / (1 + (shift - 1) * t)
    level = sigma.view(-1, 1, 1, 1, 1)
    velocity = model((1 - level) * clean + level * noise, sigma, captions, section, history)
    return (velocity - (noise - clean)).square().mean()


def rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then constant, then linear to zero over the last 40 %."""
    return recipe.rate * min(1.0, (step + 1) / recipe.warmup, (recipe.steps - step) / (0.4 * recipe.steps))


def step_once(model: Trainee, optimizer: torch.optim.Optimizer, data: LatentClips, step: int, recipe: Recipe) -> float:
    """One optimisation step; returns the loss."""
    rng = random.Random(f"{recipe.seed}/{step}")
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    section = draw_section(rng)
    clips, captions = data.draw(rng, recipe.batch * (3 if not section.context else 1))
    captions = ["" if rng.random() < recipe.drop_caption else c for c in captions]
    for group in optimizer.param_groups:
        group["lr"] = rate_at(step, recipe)
    loss = loss_of(model, clips, captions, section, recipe)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)  # paper section 4.2
    optimizer.step()
    return loss.item()


@torch.no_grad()
def average_in(mean: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the running mean of the weights towards the model's."""
    share = max(1 - decay, 1 / (step / 10 + 1))
    torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), share)


def train(folder: Path, out: Path, recipe: Recipe, spec: HunyuanSpec) -> None:
    """Run the recipe, resuming from `out`/state.pt; writes state.pt as it goes, with the loss curve."""
    data, tokenizer = LatentClips(folder), Tokenizer(WORDS, NUM_TOKENS)
    model = Trainee(spec, tokenizer, recipe.seed)
    mean = deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.01)
    log.info("%.2f M parameters", sum(p.numel() for p in model.parameters()) / 1e6)
    state, done, curve = out / "state.pt", 0, []
    if state.exists():
        kept = torch.load(state, weights_only=True)
        model.load_state_dict(kept["model"])
        mean.load_state_dict(kept["mean"])
        optimizer.load_state_dict(kept["optimizer"])
        done, curve = kept["step"], kept["curve"]
        data.mean, data.std = kept["latent_mean"], kept["latent_std"]
        data.seen, data.seeds = set(), []
        data.refresh()
    started, running = time.time(), []
    for step in range(done, recipe.steps):
        running.append(step_once(model, optimizer, data, step, recipe))
        average_in(mean, model, step, recipe.decay)
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            curve.append([step + 1, round(sum(running) / len(running), 4)])
            took = time.time() - started
            log.info("step %d, loss %.4f, %d clips, %.0f s", *curve[-1], len(data.seeds), took)
            running = []
            data.refresh()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == recipe.steps:
            parts = {"model": model.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict()}
            kept = {**parts, "step": step + 1, "curve": curve, "latent_mean": data.mean, "latent_std": data.std}
            torch.save({**kept, "recipe": json.dumps(asdict(recipe))}, state.with_suffix(".tmp"))
            state.with_suffix(".tmp").replace(state)


def small_spec() -> HunyuanSpec:
    """The built-in DiT's sizes."""
    return HunyuanSpec(
        heads=4,
        head_dim=32,
        double_blocks=2,
        single_blocks=5,
        refiner_blocks=1,
        text_dim=128,
        pooled_dim=128,
        guidance=False,
        image_dim=None,
        rope_axes=(8, 12, 12),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("latents", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    train(args.latents, args.out, Recipe(steps=args.steps, seed=args.seed), small_spec())


if __name__ == "__main__":
    main()
