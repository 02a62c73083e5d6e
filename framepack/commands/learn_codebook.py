"""``python -m framepack codebook``: learn a codebook for discrete history from videos or latents."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CodebookError

if TYPE_CHECKING:
    from torch import Tensor

VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi")
LATENTS = (".latent", ".safetensors")


def add_codebook(commands: Any) -> None:
    """Add the command to a parser's commands."""
    codebook = commands.add_parser("codebook", help="learn a codebook for discrete history")
    codebook.add_argument("source", type=Path, metavar="FOLDER", help="videos, or latents that SaveLatent wrote")
    codebook.add_argument("target", type=Path, metavar="DST", help="a new safetensors file")
    codebook.add_argument("--size", type=int, default=128, metavar="K", help="centroids (128)")
    codebook.add_argument("--pixels", type=int, default=360_000, metavar="N", help="at most so many latent pixels")
    codebook.add_argument(
        "--format", metavar="NAME", help="latent format: built-in (the built-in model's), wan21, hunyuan (by the VAE)"
    )
    codebook.add_argument("--vae", type=Path, metavar="FILE", help="Wan 2.1 VAE that encodes videos (the built-in one)")
    codebook.add_argument("--seed", type=int, default=0)
    codebook.set_defaults(run=_codebook)


def _codebook(arguments: argparse.Namespace) -> str:
    from ..packing.codebook import Codebook, explained_variance, learn, some_pixels  # torch is for this command alone

    if arguments.target.exists():
        raise CodebookError(f"{arguments.target} exists already. Name a new file.")
    files = _files(arguments.source)
    pixels = some_pixels(_latents(files, arguments.vae), arguments.pixels, arguments.seed, len(files))
    centroids = learn(pixels, arguments.size, seed=arguments.seed)
    variance = explained_variance(pixels, centroids)
    named = arguments.format or ("wan21" if arguments.vae else "built-in")
    made = {
        "files": len(files),
        "pixels": len(pixels),
        "seed": arguments.seed,
        "explained_variance": round(variance, 4),
    }
    Codebook(centroids=centroids, latent_format=named, provenance=made).save(arguments.target)
    return (
        f"{arguments.target}: {arguments.size} centroids of {len(pixels)} pixels explain {variance:.1%} of the variance"
    )


def _files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in (*VIDEOS, *LATENTS)) if folder.is_dir() else []
    if not files:
        raise CodebookError(f"{folder} holds no videos and no latents. Name a folder with .mp4 or .latent files.")
    return files


def _latents(files: list[Path], vae_file: Path | None) -> Iterator[Tensor]:
    """Latents ``b c t h w`` of each file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ..shapes.builtin import VAE
    from ..shapes.encode import load_vae

    vae = None
    for path in files:
        if path.suffix.lower() in LATENTS:
            try:
                yield load_file(path)["latent_tensor"]
            except (SafetensorError, KeyError) as fault:
                raise CodebookError(f"{path} holds no latents. Use files that SaveLatent wrote.") from fault
        else:
            vae = vae or load_vae(vae_file or VAE)
            yield vae.encode(_pixels(path))


def _pixels(path: Path) -> Tensor:
    """The first 4n + 1 frames of a video in [-1, 1], ``1 3 t h w``, cropped to multiples of 8."""
    from itertools import islice

    import numpy as np
    import torch

    from ..metrics.frames import open_clip

    frames = np.stack(list(islice(open_clip(path).frames, 81)))
    t, h, w = (len(frames) - 1) // 4 * 4 + 1, frames.shape[1] // 8 * 8, frames.shape[2] // 8 * 8
    pixels = torch.from_numpy(frames[:t, :h, :w]).permute(3, 0, 1, 2)[None]
    return pixels.float() / 127.5 - 1
