"""Train the built-in DiT and its text encoder on latents of the shapes' world.

    python -m framepack.shapes.train_dit LATENTS OUT_FOLDER [--device cuda] [--from framepack/shapes/assets]

Each step draws one section of one plan, the same planner's that generation uses, and a batch of clips for it: the
clips' latents fill the section's context, the section's own latents are noised and the model predicts the velocity.
Noise levels follow Flux's dynamic shift (paper section 4.2), and lie higher in the last stage, where what the text
decides is learned. Latents of history, but for the first frame, get a little noise of their own, since in generation
they are not perfect either.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..models.hunyuan import HunyuanDiT, HunyuanSpec
from ..nn.attention import sdpa
from ..packing.history import gather
from ..packing.kernels import LAYER_NAMES, interpolated
from ..planning.plan import Section
from ..sampling.sigmas import dynamic_shift
from ..training.muon import Muon
from ..units import BASE
from . import builtin
from .clips import Latents
from .recipe import Recipe, Stage, draw_section
from .teach_text import teach
from .text import TextEncoder, Tokenizer
from .world import CIRCUMRADIUS, COLOURS, DIRECTIONS

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


def in_float32(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """Attention in float32 where the products around it are in bfloat16: on CPUs its backward pass is faster so."""
    with torch.autocast(q.device.type, enabled=False):
        return sdpa(q.float(), k.float(), v.float(), mask, **options)


class Trainee(nn.Module):
    """DiT and text encoder, trained together."""

    def __init__(self, spec: HunyuanSpec, tokenizer: Tokenizer, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.tokenizer = tokenizer
        self.text = TextEncoder(len(tokenizer.words), tokenizer.num_tokens, spec.text_dim)
        self.dit = HunyuanDiT(spec, attention=in_float32)
        self.dit.init_weights()

    def forward(self, x: Tensor, sigma: Tensor, captions: list[str], section: Section, history: list) -> Tensor:
        """x ``b c t h w`` noisy, sigma ``b`` -> velocity like x."""
        context, pooled = self.text(torch.tensor([self.tokenizer(c) for c in captions], device=x.device))
        return self.dit(x, sigma * 1000, context, pooled, positions=section.positions, history=history)


def loss_of(
    model: Trainee, clips: Tensor, captions: list[str], section: Section, recipe: Recipe, shift: float | None = None
) -> Tensor:
    """Mean squared error of the velocity over one batch. Noise is drawn on the CPU: the same on every device."""
    b = clips.shape[0]
    clean = torch.cat([clips[:, :, start:stop] for start, stop in section.makes], 2)
    strength = torch.rand(b, 1, 1, 1, 1) * recipe.history_noise
    seen = clips + (strength * torch.randn(clips.shape)).to(clips)
    timeline = {i: (clips if i == 0 else seen)[:, :, i : i + 1] for i in range(clips.shape[2])}
    history = gather(section, timeline, clean)
    noise, t = torch.randn(clean.shape).to(clips), ((torch.arange(b) + torch.rand(b)) / b).to(clips)
    shift = shift or dynamic_shift(BASE.num_tokens(*clean.shape[2:]))
    sigma = shift * t / (1 + (shift - 1) * t)
    level = sigma.view(-1, 1, 1, 1, 1)
    velocity = model((1 - level) * clean + level * noise, sigma, captions, section, history)
    return (velocity - (noise - clean)).square().mean()


def rate_at(step: int, stage: Stage) -> float:
    """Linear warm-up, then constant, then linear to zero over the stage's `decay`; step counts from its beginning."""
    falling = (stage.steps - step) / (stage.decay * stage.steps) if stage.decay else 1.0
    return stage.rate * min(1.0, (step + 1) / stage.warmup, falling)


def optimizers_of(model: Trainee, stage: Stage, products: torch.dtype = torch.float32) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices within the networks and AdamW for the rest."""
    matrices = []
    if stage.optimizer == "muon":
        edges = ("text.words", "text.places", "dit.proj_out")
        matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and not name.startswith(edges)]
    model.text.requires_grad_(stage.text)
    matrices = [p for p in matrices if p.requires_grad]
    held = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in held and p.requires_grad]
    adamw = torch.optim.AdamW(rest, lr=stage.rate, betas=(0.9, 0.99), weight_decay=0.01)
    return [adamw, Muon(matrices, lr=stage.rate, products=products)] if matrices else [adamw]


def step_once(
    model: Trainee, optimizers: list[torch.optim.Optimizer], data: Latents, step: int, recipe: Recipe
) -> float:
    """One optimisation step; returns the loss."""
    stage, own_step = recipe.at(step)
    rng = random.Random(f"{recipe.seed}/{step}")
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    section = draw_section(rng, stage.mixture)
    shift = stage.shift
    if section.makes == ((0, 1),):
        clips, captions = data.first.draw(rng, recipe.batch_of_frames)
        shift = stage.frames_shift or shift
    else:
        clips, captions = data.clips.draw(rng, recipe.batch_of(section))
    clips = clips.to(model.text.words.weight.device)
    captions = ["" if rng.random() < recipe.drop_caption else c for c in captions]
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=recipe.bf16):
        loss = loss_of(model, clips, captions, section, recipe, shift)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)  # paper section 4.2
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(own_step, stage)
        optimizer.step()
    return loss.item()


@torch.no_grad()
def average_in(mean: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the running mean of the weights towards the model's."""
    share = max(1 - decay, 1 / (step / 10 + 1))
    torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), share)


def grown(weights: dict[str, Tensor], spec: HunyuanSpec) -> dict[str, Tensor]:
    """A state's weights with the packing layers that it lacks, by interpolation from the largest that it has."""
    names = {kernel: f"dit.clean_x_embedder.{LAYER_NAMES[kernel]}." for kernel in spec.kernels}
    largest = max((k for k in names if names[k] + "weight" in weights), key=lambda kernel: kernel.size)
    lacking = [kernel for kernel in names if names[kernel] + "weight" not in weights]
    added = {names[k] + "weight": interpolated(weights[names[largest] + "weight"], k) for k in lacking}
    return weights | added | {names[k] + "bias": weights[names[largest] + "bias"] for k in lacking}


def read_exported(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """The state that an exported model stands for: at the beginning of the recipe's last stage."""
    files = {
        "dit.": folder / builtin.DIT.relative_to(builtin.ASSETS),
        "text.": folder / builtin.TEXT.relative_to(builtin.ASSETS),
    }
    weights = {prefix + key: value.float() for prefix, path in files.items() for key, value in load_file(path).items()}
    metadata = builtin.read_metadata(files["dit."])
    latent_format = builtin.read_latent_format(metadata)
    assert latent_format is not None, "an exported model states its latent format"
    return {
        "model": weights,
        "mean": weights,
        "step": recipe.steps - recipe.stages[-1].steps,
        "curve": json.loads(metadata["framepack.training"])["curve"],
        "latent_mean": torch.tensor(latent_format.mean).view(1, -1, 1, 1, 1),
        "latent_std": torch.tensor(latent_format.std).view(1, -1, 1, 1, 1),
    }


class Run:
    """A training run: model, running mean, optimizers and loss curve, which state.pt keeps."""

    def __init__(
        self, folder: Path, out: Path, recipe: Recipe, spec: HunyuanSpec, device: str, exported: Path | None = None
    ):
        self.recipe, self.state = recipe, out / "state.pt"
        self.products = torch.bfloat16 if recipe.bf16 else torch.float32
        self.data, self.model = Latents(folder), Trainee(spec, Tokenizer(WORDS, NUM_TOKENS), recipe.seed).to(device)
        self.mean = deepcopy(self.model).requires_grad_(False)
        self.optimizers: list[torch.optim.Optimizer] = []
        self.done, self.curve = 0, []
        if self.state.exists():
            self.resume(torch.load(self.state, map_location="cpu", weights_only=True))
        elif exported:
            self.resume(read_exported(exported, recipe))
        log.info("%.2f M parameters", sum(p.numel() for p in self.model.parameters()) / 1e6)

    def resume(self, kept: dict[str, Any]) -> None:
        """Go on from a kept state; the optimizers of a stage that begins with the next step are new."""
        self.model.load_state_dict(grown(kept["model"], self.model.dit.spec))
        self.mean.load_state_dict(grown(kept["mean"], self.mean.dit.spec))
        self.done, self.curve = kept["step"], kept["curve"]
        self.data.normalise_as(kept["latent_mean"], kept["latent_std"])
        if self.done < self.recipe.steps:
            stage, own_step = self.recipe.at(self.done)
            self.optimizers = optimizers_of(self.model, stage, self.products)
            if own_step:
                for optimizer, state in zip(self.optimizers, kept["optimizers"], strict=True):
                    optimizer.load_state_dict(state)

    def begin(self, stage: Stage) -> None:
        """Fresh optimizers for a stage, and its lessons for the text encoder."""
        if stage.teach:
            teach(self.model.text, self.model.tokenizer, stage.teach, self.recipe.seed)
            self.mean.text.load_state_dict(self.model.text.state_dict())
        self.optimizers = optimizers_of(self.model, stage, self.products)

    def save(self, step: int) -> None:
        """Write state.pt, complete or not at all."""
        kept = {
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": step,
            "curve": self.curve,
            "latent_mean": self.data.clips.mean,
            "latent_std": self.data.clips.std,
            "recipe": json.dumps(asdict(self.recipe)),
        }
        torch.save(kept, self.state.with_suffix(".tmp"))
        self.state.with_suffix(".tmp").replace(self.state)


def train(
    folder: Path, out: Path, recipe: Recipe, spec: HunyuanSpec, device: str = "cpu", exported: Path | None = None
) -> None:
    """Run the recipe, resuming from `out`/state.pt; writes state.pt as it goes, with the loss curve.

    Without a state.pt, `exported` is a folder of a model's files that the last stage goes on from.
    """
    run = Run(folder, out, recipe, spec, device, exported)
    started, losses = time.time(), []
    for step in range(run.done, recipe.steps):
        stage, own_step = recipe.at(step)
        if own_step == 0:
            run.begin(stage)
        losses.append(step_once(run.model, run.optimizers, run.data, step, recipe))
        average_in(run.mean, run.model, step, recipe.average)
        last = step + 1 == recipe.steps
        if (step + 1) % 100 == 0 or last:
            run.curve.append([step + 1, round(sum(losses) / len(losses), 4)])
            log.info(
                "step %d, loss %.4f, %d clips, %.0f s", *run.curve[-1], len(run.data.clips.seeds), time.time() - started
            )
            losses = []
            run.data.refresh()
        if (step + 1) % SAVE_EVERY == 0 or last:
            run.save(step + 1)


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
        kernels=tuple(LAYER_NAMES),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("latents", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.add_argument("--from", dest="exported", type=Path, help="a model's files, for the last stage alone")
    parser.add_argument("--bf16", action="store_true", help="products in bfloat16, where the processor has them")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(seed=args.seed, bf16=args.bf16)
    train(args.latents, args.out, recipe, small_spec(), args.device, args.exported)


if __name__ == "__main__":
    main()
