"""Encode clips of the shapes' world into a cache of latents, unscaled, with each clip's caption in its three wordings.

    python -m framepack.shapes.encode VAE.safetensors FOLDER --clips 1500 --first-frames 24000

Beside whole clips it holds first frames of many more, from which the model learns what text alone says.
"""

from __future__ import annotations

import argparse
import logging
import random
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..training.cache import Clip, Index, clip_path, is_whole, write_tensors
from ..vae.wan import WanVAE
from .train_vae import channels_last
from .world import Scene, caption, render, sample_scene

log = logging.getLogger(__name__)
NUM_LAT_FRAMES = 47  # a five-second video and a full history behind its last section but one
FIRST_SEED = 100_000  # evaluation uses seeds below
FRAMES_SEED = 1_000_000  # scenes of which only the first frame is used


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


def write_clips(vae: WanVAE, folder: Path, seeds: range, num_lat_frames: int, per_file: int) -> list[Clip]:
    """Encode the seeds' scenes, so many to a file; files that are there are kept."""
    clips = []
    for first in range(seeds.start, seeds.stop, per_file):
        file, some = f"{first}.safetensors", range(first, min(first + per_file, seeds.stop))
        if not is_whole(clip_path(folder, file)):
            latents = {str(seed): encode_scene(vae, scene_of(seed), num_lat_frames) for seed in some}
            write_tensors(clip_path(folder, file), latents)
            log.info("%s", file)
        clips += [clip_of(seed, file, num_lat_frames) for seed in some]
    return clips


def clip_of(seed: int, file: str, num_lat_frames: int) -> Clip:
    """The entry of a seed's scene in a cache."""
    captions = tuple(caption(replace(scene_of(seed), wording=wording)) for wording in range(3))
    return Clip(file=file, name=str(seed), shape=(16, num_lat_frames, 8, 8), captions=captions)


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
    frames = range(FRAMES_SEED, FRAMES_SEED + args.first_frames)
    clips = write_clips(vae, args.folder, range(FIRST_SEED, FIRST_SEED + args.clips), NUM_LAT_FRAMES, 25)
    clips += write_clips(vae, args.folder, frames, 1, 1000)
    Index(encoder=str(args.vae), clips=tuple(clips)).write(args.folder)


if __name__ == "__main__":
    main()
