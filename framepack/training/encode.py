"""Encode clips of the shapes' world into latents, in shards that a running training picks up.

python -m framepack.training.encode VAE.safetensors FOLDER --clips 1500
"""

from __future__ import annotations

import argparse
import logging
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..vae.wan import WanVAE
from .shapes import Scene, render, sample_scene
from .train_vae import channels_last

log = logging.getLogger(__name__)
NUM_LAT_FRAMES = 47  # a five-second video and a full history behind its last section but one
SHARD = 25
FIRST_SEED = 100_000  # evaluation uses seeds below


def scene_of(seed: int) -> Scene:
    """The scene of a seed, the same on every machine."""
    return sample_scene(random.Random(seed))


def load_vae(path: Path) -> WanVAE:
    """A VAE of the built-in width, laid out for speed on a CPU."""
    vae = WanVAE().eval().requires_grad_(False)
    vae.load_state_dict(load_file(path))
    channels_last(vae)
    return vae


@torch.no_grad()
def encode_scene(vae: WanVAE, scene: Scene, num_lat_frames: int) -> torch.Tensor:
    """Latents of a scene from its first frame on, ``16 t 8 8``, unscaled."""
    pixels = render(scene, range(4 * num_lat_frames - 3))[None] * 2 - 1
    return vae.encode(pixels.contiguous(memory_format=torch.channels_last_3d))[0]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=1500)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.folder.mkdir(parents=True, exist_ok=True)
    vae = load_vae(args.vae)
    for first in range(FIRST_SEED, FIRST_SEED + args.clips, SHARD):
        path = args.folder / f"{first}.safetensors"
        if path.exists():
            continue
        seeds = range(first, first + SHARD)
        clips = torch.stack([encode_scene(vae, scene_of(s), NUM_LAT_FRAMES).contiguous() for s in seeds])
        save_file({"latents": clips, "seeds": torch.tensor(seeds)}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
        log.info("%s", path.name)


if __name__ == "__main__":
    main()
