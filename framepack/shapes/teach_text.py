"""Teach the text encoder alone what captions say, before the DiT looks at it.

Trained with the DiT only, its pooled output hardly tells one direction from another after thousands of steps, since
few sections depend on it. A minute of naming colour, outline, direction, speed, turning and background from the
pooled output, with noise upon it, gives each of them a clear place there.
"""

from __future__ import annotations

import logging
import random
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .text import TextEncoder, Tokenizer
from .world import CIRCUMRADIUS, COLOURS, DIRECTIONS, SPEEDS, Scene, caption, sample_scene

log = logging.getLogger(__name__)
ATTRIBUTES = (len(COLOURS), len(CIRCUMRADIUS), len(DIRECTIONS), len(SPEEDS), 2, 2)
NOISE = 0.5  # standard deviation on the pooled output, against which the classes must stand apart
BATCH, RATE = 128, 2e-3


def attributes_of(scene: Scene, said: bool) -> list[int]:
    """Classes of what a caption says, counted from 1; 0 where it does not say."""
    if not said:
        return [0] * len(ATTRIBUTES)
    background = 0 if scene.wording == 2 else 1 + (scene.greys[0] == scene.greys[1])
    return [
        1 + list(COLOURS).index(scene.colour),
        1 + list(CIRCUMRADIUS).index(scene.shape),
        1 + list(DIRECTIONS).index(scene.direction),
        1 + list(SPEEDS).index(scene.speed),
        1 + bool(scene.spin),
        background,
    ]


def draw(rng: random.Random, tokenizer: Tokenizer, drop: float) -> tuple[Tensor, Tensor]:
    """Tokens ``b l`` of captions, some of them empty, and classes ``b a`` of what they say."""
    tokens, classes = [], []
    for _ in range(BATCH):
        scene = replace(sample_scene(rng), wording=rng.randrange(3))
        said = rng.random() >= drop
        tokens.append(tokenizer(caption(scene) if said else ""))
        classes.append(attributes_of(scene, said))
    return torch.tensor(tokens), torch.tensor(classes)


def teach(text: TextEncoder, tokenizer: Tokenizer, steps: int, seed: int, drop: float = 0.1) -> float:
    """Train the encoder so that linear heads read every attribute off its noisy pooled output; returns accuracy."""
    torch.manual_seed(seed)
    text.requires_grad_(True)
    rng = random.Random(f"text/{seed}")
    device = text.words.weight.device
    heads = nn.ModuleList([nn.Linear(text.pool.out_features, num + 1) for num in ATTRIBUTES]).to(device)
    optimizer = torch.optim.AdamW([*text.parameters(), *heads.parameters()], lr=RATE, weight_decay=0.01)
    right = 0.0
    for step in range(steps):
        tokens, classes = (drawn.to(device) for drawn in draw(rng, tokenizer, drop))
        pooled = text(tokens)[1]
        pooled = pooled + NOISE * torch.randn_like(pooled)
        scores = [head(pooled) for head in heads]
        loss = sum(F.cross_entropy(score, classes[:, i]) for i, score in enumerate(scores))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, 2 * (steps - step) / steps)
        optimizer.step()
        hits = torch.stack([score.argmax(1) == classes[:, i] for i, score in enumerate(scores)])
        right = hits.float().mean().item()
    optimizer.zero_grad(set_to_none=True)  # else they would count when the DiT's gradients are clipped
    with torch.no_grad():  # to the size of the other embeddings that it is added to
        spread = text(draw(rng, tokenizer, drop)[0].to(device))[1].std()
        text.pool.weight /= spread
        text.pool.bias /= spread
    log.info("text encoder: %.1f %% of what captions say is read back", 100 * right)
    return right
