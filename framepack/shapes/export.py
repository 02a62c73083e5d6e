"""Turn a training state into the files of the built-in model.

    python -m framepack.shapes.export STATE.pt LATENTS [--out FOLDER]

Weights are the running means, the DiT's in half precision. Preview factors are fitted by least squares from
normalised latents to the mean colour of the pixels that each of them stands for.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import av
import torch
from einops import rearrange
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ..models.backbones import POSITIONS
from ..units import FRAMES_PER_LATENT, PIXELS_PER_LATENT
from . import builtin
from .clips import LatentClips
from .encode import FIRST_SEED, scene_of
from .recipe import Recipe
from .train_dit import NUM_TOKENS, WORDS, small_spec
from .world import render

log = logging.getLogger(__name__)
NUM_FITTED = 64  # clips
EXAMPLE = replace(
    scene_of(7),
    shape="star",
    colour="red",
    start=(20.0, 34.0),
    direction="right",
    speed="",
    spin=0.0,
    radius=11.0,
    greys=(0.25, 0.25),
)  # the start image that comes with the pack


def fit_preview(data: LatentClips) -> tuple[Tensor, Tensor]:
    """Factors ``c 3`` and bias ``3`` from normalised latents to colours in [-1, 1]."""
    latents, colours = [], []
    for clip, seed in zip(data.clips[:NUM_FITTED], data.seeds[:NUM_FITTED], strict=True):
        frames = range(0, FRAMES_PER_LATENT * clip.shape[1] - 3, FRAMES_PER_LATENT)  # one frame of each latent
        pixels = render(scene_of(seed), frames) * 2 - 1  # c t h w
        pooled = torch.nn.functional.avg_pool2d(pixels, PIXELS_PER_LATENT)
        latents.append(rearrange(clip, "c t h w -> (t h w) c"))
        colours.append(rearrange(pooled, "c t h w -> (t h w) c"))
    x, y = torch.cat(latents), torch.cat(colours)
    solved = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1), y).solution
    return solved[:-1], solved[-1]


def latent_format(kept: dict[str, Any], data: LatentClips) -> builtin.LatentFormat:
    """The measured mean and deviation, and the fitted preview."""
    factors, bias = fit_preview(data)
    return builtin.LatentFormat(
        mean=_rounded(kept["latent_mean"].flatten()),
        std=_rounded(kept["latent_std"].flatten()),
        rgb_factors=tuple(map(_rounded, factors)),
        rgb_bias=_rounded(bias),
    )


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 5) for value in values.tolist())


def export(state: Path, latents: Path, out: Path) -> None:
    """Write the DiT and the text encoder below `out`, where the pack looks for them."""
    kept = torch.load(state, map_location="cpu", weights_only=True)
    data = LatentClips(latents)
    data.normalise_as(kept["latent_mean"], kept["latent_std"])
    spec = small_spec()
    history = {"recipe": json.loads(kept["recipe"]), "steps_done": kept["step"], "clips": len(data.seeds)}
    curve = {"first_seed": FIRST_SEED, "curve": kept["curve"]}
    positions = Recipe().positions
    metadata = {
        POSITIONS: json.dumps([positions.start, positions.stop - 1]),
        "framepack.spec": json.dumps({"rope_axes": spec.rope_axes, "rope_theta": spec.rope_theta}),
        "framepack.latent_format": json.dumps(asdict(latent_format(kept, data))),
        "framepack.training": json.dumps(history | curve),
    }
    vocabulary = {"framepack.vocabulary": json.dumps({"words": WORDS, "num_tokens": NUM_TOKENS})}
    _save(_part(kept["mean"], "dit.", torch.float16), out, builtin.DIT, metadata)
    _save(_part(kept["mean"], "text.", torch.float32), out, builtin.TEXT, vocabulary)


def _part(weights: dict[str, Tensor], prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v.to(dtype).contiguous() for k, v in weights.items() if k.startswith(prefix)}


def _save(weights: dict[str, Tensor], out: Path, asset: Path, metadata: dict[str, str]) -> None:
    path = out / asset.relative_to(builtin.ASSETS)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata)
    log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


def write_examples(folder: Path) -> None:
    """The start image and the video that come with the pack."""
    folder.mkdir(parents=True, exist_ok=True)
    video = (rearrange(render(EXAMPLE, range(37)), "c t h w -> t h w c") * 255).round().to(torch.uint8).numpy()
    Image.fromarray(video[0]).save(folder / "framepack_red_star.png")
    with av.open(str(folder / "framepack_red_star.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "yuv420p"
        for frame in video:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("latents", type=Path)
    parser.add_argument("--out", type=Path, default=builtin.ASSETS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    export(args.state, args.latents, args.out)
    write_examples(args.out / "input")


if __name__ == "__main__":
    main()
