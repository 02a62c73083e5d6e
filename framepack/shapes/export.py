"""Turn a training run into the files of the built-in model.

    python -m framepack.shapes.export RUN LATENTS [--out FOLDER] [--from FOLDER]

Weights are the running means, the DiT's in half precision. Preview factors are fitted by least squares from
normalised latents to the mean colour of the pixels that each of them stands for.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ..models.backbones import POSITIONS
from ..training.clips import Clips
from ..training.reports import read_log
from ..training.states import ABOUT, read_weights
from ..units import RELEASED
from . import builtin
from .encode import scene_of
from .encoders import write_video
from .rendering import render
from .text import Tokenizer
from .train_dit import NUM_TOKENS, WORDS, Pair, read_exported, small_spec, statistics

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


def fit_preview(clips: Clips) -> tuple[Tensor, Tensor]:
    """Factors ``c 3`` and bias ``3`` from normalised latents to colours in [-1, 1]."""
    latents, colours = [], []
    for clip in clips.sample(NUM_FITTED):
        frames = range(0, RELEASED.temporal * clip.num_lat_frames - 3, RELEASED.temporal)  # one frame of each latent
        pixels = render(scene_of(int(clip.name)), frames) * 2 - 1  # c t h w
        pooled = torch.nn.functional.avg_pool2d(pixels, RELEASED.spatial)
        latents.append(rearrange(clips.read(clip, clip.num_lat_frames), "c t h w -> (t h w) c"))
        colours.append(rearrange(pooled, "c t h w -> (t h w) c"))
    x, y = torch.cat(latents), torch.cat(colours)
    solved = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1), y).solution
    return solved[:-1], solved[-1]


def latent_format(folder: Path) -> builtin.LatentFormat:
    """The mean and deviation that a cache's latents are normalised by, and the fitted preview."""
    mean, std = statistics(folder)
    factors, bias = fit_preview(Clips(folder, mean, std))
    return builtin.LatentFormat(
        mean=_rounded(torch.tensor(mean)),
        std=_rounded(torch.tensor(std)),
        rgb_factors=tuple(map(_rounded, factors)),
        rgb_bias=_rounded(bias),
    )


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 5) for value in values.tolist())


def export(run: Path, latents: Path, out: Path, start: Path | None = None) -> None:
    """Write a run's newest state below `out`, where the pack looks for it.

    What the run did not train comes from the files in `start`.
    """
    newest = max(path for path in (run / "states").iterdir() if path.name.isdigit())
    about, weights = json.loads((newest / ABOUT).read_text("utf-8")), read_weights(newest)
    if start and not any(name.startswith("text.") for name in weights):
        model = Pair(small_spec(), Tokenizer(WORDS, NUM_TOKENS), about["run"]["run"]["seed"])
        read_exported(model, start)
        weights |= model.text.state_dict(prefix="text.")
    curve = [[record.step, round(record.loss, 4)] for record in read_log(run / "log.jsonl")]
    history = {"run": about["run"], "steps_done": int(newest.name), "curve": curve[99::100]}
    if start:
        history["before"] = read_history(start)
    write_model(weights, history, latent_format(latents), out)


def read_history(folder: Path) -> dict[str, Any]:
    """How the model whose files are in a folder was trained, as its DiT's file says."""
    metadata = builtin.read_metadata(folder / builtin.DIT.relative_to(builtin.ASSETS))
    return json.loads(metadata.get("framepack.training", "{}"))


def write_model(
    weights: Mapping[str, Tensor], history: Mapping[str, Any], how: builtin.LatentFormat, out: Path
) -> None:
    """Write a DiT (``dit.NAME``) and a text encoder (``text.NAME``); `history` is how they were trained."""
    spec = small_spec()
    metadata = {
        POSITIONS: json.dumps(history["run"]["positions"]),
        "framepack.spec": json.dumps({"rope_axes": spec.rope_axes, "rope_theta": spec.rope_theta}),
        "framepack.latent_format": json.dumps(asdict(how)),
        "framepack.training": json.dumps(history),
    }
    vocabulary = {"framepack.vocabulary": json.dumps({"words": WORDS, "num_tokens": NUM_TOKENS})}
    _save(_part(weights, "dit.", torch.float16), out, builtin.DIT, metadata)
    _save(_part(weights, "text.", torch.float32), out, builtin.TEXT, vocabulary)


def _part(weights: Mapping[str, Tensor], prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        k.removeprefix(prefix): v.detach().to("cpu", dtype).contiguous()
        for k, v in weights.items()
        if k.startswith(prefix)
    }


def _save(weights: dict[str, Tensor], out: Path, asset: Path, metadata: dict[str, str]) -> None:
    path = out / asset.relative_to(builtin.ASSETS)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata)
    log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


def write_examples(folder: Path) -> None:
    """The start image and the video that come with the pack."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = render(EXAMPLE, range(37)).transpose(0, 1)
    picture = (rearrange(frames[0], "c h w -> h w c") * 255).round().to(torch.uint8).numpy()
    Image.fromarray(picture).save(folder / "framepack_red_star.png")
    write_video(frames, folder / "framepack_red_star.mp4")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("latents", type=Path)
    parser.add_argument("--out", type=Path, default=builtin.ASSETS)
    parser.add_argument("--from", dest="start", type=Path, help="files of the model that was trained further")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    export(args.run, args.latents, args.out, args.start)
    write_examples(args.out / "input")


if __name__ == "__main__":
    main()
