"""Encode clips of the shapes' world into latents, in shards that a running training picks up.

    python -m framepack.shapes.encode VAE.safetensors FOLDER --clips 1500 --first-frames 24000

Whole clips lie in the folder; first frames of other clips, from which the model learns what text alone says, in its
folder `first`.
"""

from __future__ import annotations

import argparse
import logging
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..vae.wan import WanVAE
from .train_vae import channels_last
from .world import Scene, render, sample_scene

log = logging.getLogger(__name__)
NUM_LAT_FRAMES = 47  # a five-second video and a full history behind its last section but one
FIRST_SEED = 100_000  # evaluation uses seeds below
FRAMES_SEED = 1_000_000  # of the scenes that only give their first frame


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


def write_shards(vae: WanVAE, folder: Path, seeds: range, num_lat_frames: int, shard: int) -> None:
    """Encode the seeds' scenes, `shard` of them to a file; files that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(seeds.start, seeds.stop, shard):
        path, some = folder / f"{first}.safetensors", range(first, min(first + shard, seeds.stop))
        if path.exists():
            continue
        latents = torch.stack([encode_scene(vae, scene_of(seed), num_lat_frames).contiguous() for seed in some])
        save_file({"latents": latents, "seeds": torch.tensor(some)}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
        log.info("%s", path.name)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=1500)
    parser.add_argument("--first-frames", type=int, default=24000)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    vae = load_vae(args.vae)
    write_shards(vae, args.folder / "first", range(FRAMES_SEED, FRAMES_SEED + args.first_frames), 1, 1000)
    write_shards(vae, args.folder, range(FIRST_SEED, FIRST_SEED + args.clips), NUM_LAT_FRAMES, 25)


if __name__ == "__main__":
    main()
