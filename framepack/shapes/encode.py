"""Encode clips of the shapes' world into a cache of latents, unscaled, with each clip's caption in its three wordings.

    python -m framepack.shapes.encode VAE.safetensors FOLDER [--share 0.1]

The cache has parts, each with a tag: clips of the plain world and of the wide one, shapes that leave and come back,
long clips, and first frames of many more scenes, from which the model learns what text alone says.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..training.cache import Clip, Index, clip_path, is_whole, write_tensors
from ..vae.wan import WanVAE
from .rendering import draw, render
from .train_vae import channels_last
from .wide import sample_away, sample_wide
from .world import Scene, caption, sample_scene

log = logging.getLogger(__name__)
FIRST_SEED = 100_000  # evaluation uses seeds below
FRAMES_SEED = 1_000_000  # scenes of which only the first frame is used
WRITERS = 4  # threads that write files while the next are encoded
AT_ONCE = {"cuda": 3000}  # frames that are encoded together
AT_ONCE_ELSEWHERE = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Scenes of a kind: seeds from `first` on, so many clips of so many latent frames, `per_file` to a file."""

    tag: str
    first: int
    clips: int
    num_lat_frames: int
    per_file: int
    sample: Callable[[random.Random], Scene]


def _sample_either(rng: random.Random) -> Scene:
    return sample_wide(rng) if rng.random() < 0.5 else sample_scene(rng)


# 47 latent frames: a five-second video and a full history behind its last section but one. 140: a long history.
PARTS = (
    Part(tag="plain", first=FIRST_SEED, clips=5120, num_lat_frames=47, per_file=128, sample=sample_scene),
    Part(tag="frame", first=FRAMES_SEED, clips=24000, num_lat_frames=1, per_file=6000, sample=sample_scene),
    Part(tag="wide", first=4_000_000, clips=5120, num_lat_frames=47, per_file=128, sample=sample_wide),
    Part(tag="away", first=5_000_000, clips=1512, num_lat_frames=80, per_file=72, sample=sample_away),
    Part(tag="long", first=6_000_000, clips=1200, num_lat_frames=140, per_file=40, sample=_sample_either),
)


def part_of(seed: int) -> Part:
    """The part of a seed; seeds of evaluation count as the first's."""
    return max((part for part in PARTS if part.first <= seed), key=lambda part: part.first, default=PARTS[0])


def scene_of(seed: int) -> Scene:
    """The scene of a seed, the same on every machine."""
    return part_of(seed).sample(random.Random(seed))


def load_vae(path: Path, device: torch.device | str = "cpu") -> WanVAE:
    """A VAE of the built-in width, on a CPU laid out for speed."""
    vae = WanVAE().eval().requires_grad_(False)
    vae.load_state_dict(load_file(path))
    if torch.device(device).type == "cpu":
        channels_last(vae)
    return vae.to(device)


@torch.no_grad()
def encode_scene(vae: WanVAE, scene: Scene, num_lat_frames: int) -> Tensor:
    """Latents of a scene from its first frame on, ``16 t 8 8``, unscaled, on the CPU."""
    pixels = render(scene, range(4 * num_lat_frames - 3))[None] * 2 - 1
    pixels = pixels.contiguous(memory_format=torch.channels_last_3d).to(next(vae.parameters()).device)
    return vae.encode(pixels)[0].cpu()


@torch.no_grad()
def encode_scenes(vae: WanVAE, scenes: Sequence[Scene], num_lat_frames: int) -> Tensor:
    """The same of many scenes on the VAE's device: ``b 16 t 8 8``, in half precision on the CPU."""
    device, count = next(vae.parameters()).device, 4 * num_lat_frames - 3
    size = max(AT_ONCE.get(device.type, AT_ONCE_ELSEWHERE) // count, 1)
    found = []
    for i in range(0, len(scenes), size):
        some = scenes[i : i + size]
        pixels = draw(some, [0] * len(some), count, device).mul_(2).sub_(1)
        if device.type == "cpu":
            pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        found.append(vae.encode(pixels).half())
    return torch.cat(found).cpu()


def write_clips(vae: WanVAE, folder: Path, seeds: range, num_lat_frames: int, per_file: int) -> list[Clip]:
    """Encode the seeds' scenes, so many to a file; files that are there are kept."""
    clips = []
    for first in range(seeds.start, seeds.stop, per_file):
        file, some = f"{first}.safetensors", range(first, min(first + per_file, seeds.stop))
        if not is_whole(clip_path(folder, file)):
            write_tensors(clip_path(folder, file), _encoded(vae, some, num_lat_frames))
            log.info("%s", file)
        clips += [clip_of(seed, file, num_lat_frames) for seed in some]
    return clips


def _encoded(vae: WanVAE, seeds: range, num_lat_frames: int) -> dict[str, Tensor]:
    latents = encode_scenes(vae, [scene_of(seed) for seed in seeds], num_lat_frames)
    return {str(seed): each for seed, each in zip(seeds, latents, strict=True)}


def clip_of(seed: int, file: str, num_lat_frames: int) -> Clip:
    """The entry of a seed's scene in a cache."""
    scene, part = scene_of(seed), part_of(seed)
    wordings = (2,) if scene.backdrop and scene.backdrop.texture and not scene.away else range(3)
    captions = tuple(caption(replace(scene, wording=wording)) for wording in wordings)
    return Clip(file=file, name=str(seed), shape=(16, num_lat_frames, 8, 8), captions=captions, tag=part.tag)


def write_cache(vae: WanVAE, folder: Path, share: float = 1.0, deadline: float = float("inf")) -> bool:
    """Encode a share of every part; files that are there are kept. Writes the index; was there time for all?

    After the deadline, a time of `time.monotonic`, nothing more is encoded; the parts grow together.
    """
    clips: list[Clip] = []
    writing: list[Future] = []
    complete, there = True, set()
    with ThreadPoolExecutor(WRITERS) as pool:
        for part, seeds in _files(share):
            file = f"{seeds.start}.safetensors"
            path = clip_path(folder, file)
            if not is_whole(path):
                if time.monotonic() > deadline and part.tag in there:
                    complete = False
                    continue
                writing.append(pool.submit(write_tensors, path, _encoded(vae, seeds, part.num_lat_frames)))
            there.add(part.tag)
            clips += [clip_of(seed, file, part.num_lat_frames) for seed in seeds]
        for each in writing:
            each.result()
    Index(encoder="shapes", clips=tuple(sorted(clips, key=lambda clip: int(clip.name)))).write(folder)
    log.info("%d clips in %d new files", len(clips), len(writing))
    return complete


def _files(share: float) -> list[tuple[Part, range]]:
    """Every file's part and seeds; all parts advance evenly."""
    found = []
    for part in PARTS:
        stop = part.first + max(round(part.clips * share), 2)
        for first in range(part.first, stop, part.per_file):
            seeds = range(first, min(first + part.per_file, stop))
            found.append(((seeds.stop - part.first) / (stop - part.first), part, seeds))
    return [(part, seeds) for _, part, seeds in sorted(found, key=lambda each: each[0])]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the clips, such as 0.1")
    parser.add_argument("--device", default="cpu", help="such as cuda")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_cache(load_vae(args.vae, args.device), args.folder, args.share)


if __name__ == "__main__":
    main()
