"""Decoding a video: HunyuanVideo's VAE against the reference's windows, both VAEs against the host's own node.

python -m benchmarks.decode [--rounds N]

Three sections by HunyuanVideo's VAE in the released grid, against windows: as each section of the inverted order is
finished, its latents and as many after them, 18 (19 in the last, which has the start latent), are decoded and blended
over 33 frames into the video. Both go through diffusers' HunyuanVideo VAE, narrow and with random weights, whose own
tiles in time are 5 latents every 3.

The built-in VAE, which is Wan's, and a narrow HunyuanVideo VAE decode in a real ComfyUI: FramePackVAEDecode, by each
grid, against VAEDecode, in turn.

Frames by each grid differ from one decode of the whole video. The difference is measured on clips of the built-in
world through the built-in VAE. It is trained, but a tile loses only its causal past: its norms do not span time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framepack.shapes.builtin import VAE
from framepack.shapes.encode import encode_scene, load_vae, scene_of
from framepack.units import RELEASED as GEOMETRY
from framepack.vae.tiles import RELEASED, STREAMED, TileGrid, TileStream, decode_tiled
from tools.client import run
from tools.host import REPO, link_folder, running
from tools.shim.sitecustomize import mend_torchvision
from tools.workflows import Graph

from .timing import RESULTS, circumstances, ratio, rounds, shown

SECTION, SECTIONS = 9, 3
NUM_LAT_FRAMES = SECTION * SECTIONS + 1
BLENDED = GEOMETRY.pixel_frames(SECTION)
GRID = (8, 8)  # latent height and width
SIZES = {  # pixels and frames of the host's, by the name of a VAE
    "built-in VAE": {"width": 192, "height": 128, "length": 9, "batch_size": 1},
    "HunyuanVideo VAE": {"width": 64, "height": 64, "length": 109, "batch_size": 1},
}
STANDINS = REPO / "tests" / "host" / "standins"
CLIPS = 4


def hunyuan_vae() -> torch.nn.Module:
    """diffusers' HunyuanVideo VAE, 32 to 64 channels wide where the released one has 128 to 512."""
    mend_torchvision()
    from diffusers import AutoencoderKLHunyuanVideo

    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo(block_out_channels=(32, 32, 64, 64), layers_per_block=1)
    return vae.eval().requires_grad_(False)


def streamed(decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    """Frames of latents that come section by section."""
    stream = TileStream(decode)
    pieces = latents.split((SECTION + 1, *[SECTION] * (SECTIONS - 1)), 2)
    return torch.cat([*(frames for piece in pieces for frames in stream.push(piece)), *stream.flush()], 2)


def windowed(decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    """The reference's way: the last section first, each next one decoded with what lies behind it."""
    video = decode(latents[:, :, -SECTION:])
    for first in (SECTION + 1, 0):
        window = decode(latents[:, :, first : first + 2 * SECTION + (first == 0)])
        weight = torch.linspace(1, 0, BLENDED)[:, None, None]
        over = weight * window[:, :, -BLENDED:] + (1 - weight) * video[:, :, :BLENDED]
        video = torch.cat([window[:, :, :-BLENDED], over, video[:, :, BLENDED:]], 2)
    return video


@torch.no_grad()
def hunyuan(num: int) -> list[str]:
    """Rows: time over the windows' and the difference from one full decode."""
    vae = hunyuan_vae()
    torch.manual_seed(1)
    latents = torch.randn(1, 16, NUM_LAT_FRAMES, *GRID)

    def tile(x: Tensor) -> Tensor:
        return vae.decoder(vae.post_quant_conv(x))

    def own(x: Tensor) -> Tensor:
        return vae.decode(x).sample

    ours, full = streamed(tile, latents), own(latents)
    assert windowed(own, latents).shape == full.shape
    error = float((ours - full).abs().max())
    one = float((ours - decode_tiled(tile, latents)).abs().max())
    ways = {"ours": lambda: streamed(tile, latents), "windows": lambda: windowed(own, latents)}
    times = rounds(ways, num, warmup=0, clock=time.process_time)  # both ran just now
    return [
        f"| HunyuanVideo, 3 sections: each once / windows | 0.63 | {shown(ratio(times, 'ours', 'windows'), 3)} |",
        f"| pushed by section, greatest difference from one full decode by the grid | 1e-6 | {one:.1e} |",
        f"| the same from diffusers' own full decode | 1e-6 | {error:.1e} |",
    ]


def graph(node: str, name: str, factor: float, **options: Any) -> dict[str, Any]:
    """A workflow that decodes by a node and a VAE; latents times another factor are not in the host's cache."""
    g = Graph("decode", "")
    latents = g.add("LatentMultiply", samples=g.add("EmptyHunyuanLatentVideo", **SIZES[name]), multiplier=factor)
    builtin = name == "built-in VAE"
    vae = g.add("VAELoader", vae_name="framepack_shapes_vae.safetensors") if builtin else g.add("StandInVAE")
    images = g.add(node, samples=latents, vae=vae, **options)
    g.add("PreviewAny", source=g.add("GetImageSize", image=images))
    return g.api()


def hosted(num: int) -> list[str]:
    """Rows: seconds of FramePackVAEDecode over VAEDecode's in one host."""
    factors = count()

    def decode(node: str, name: str, **options: Any) -> Callable[[], object]:
        return lambda: run(host.url, graph(node, name, 1 + next(factors) / 8, **options))

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "host"
        (base / "custom_nodes").mkdir(parents=True)
        link_folder(base / "custom_nodes" / "standins", STANDINS)
        with running(base) as host:
            for name, sizes in SIZES.items():
                grids = ["auto"] if name == "built-in VAE" else ["auto", str(STREAMED), str(RELEASED)]
                ways = {grid: decode("FramePackVAEDecode", name, grid=grid) for grid in grids}
                times = rounds({"VAEDecode": decode("VAEDecode", name)} | ways, num)
                frames = GEOMETRY.pixel_frames(1 + sizes["length"] // GEOMETRY.temporal)
                what = f"{name}, {sizes['width']}x{sizes['height']}, {frames} frames"
                rows += [
                    f"| {what}: FramePackVAEDecode, grid {grid} / VAEDecode | {'1.0' if grid == 'auto' else '-'} | "
                    f"{shown(ratio(times, grid, 'VAEDecode'), 3)} |"
                    for grid in grids
                ]
    return rows


@torch.no_grad()
def grids() -> list[str]:
    """Rows: how far frames by each grid are from one decode of the whole video, with the built-in, trained VAE."""
    vae, rows = load_vae(VAE), []
    clips = [encode_scene(vae, scene_of(seed), NUM_LAT_FRAMES)[None] for seed in range(CLIPS)]
    wholes = [vae.decode(clip) for clip in clips]
    for grid in (RELEASED, STREAMED, TileGrid(tile=17, stride=15)):
        found = [decode_tiled(vae.decode, clip, grid) for clip in clips]
        errors = [((a - b) / 2).square().mean() for a, b in zip(found, wholes, strict=True)]  # of pixels in [0, 1]
        most = max(float((a - b).abs().max()) / 2 for a, b in zip(found, wholes, strict=True))
        psnr = -10 * float(torch.stack(errors).mean().log10())
        rows.append(f"| built-in VAE in tiles of {grid}, from one decode: PSNR, most | - | {psnr:.1f} dB, {most:.3f} |")
    return rows


def main() -> None:
    """Command line; prints and writes benchmarks/results/decode.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rows = [*hunyuan(args.rounds), *hosted(args.rounds), *grids()]
    head = f"# Decoding\n\n{circumstances()}. Medians of paired ratios, with quartiles.\n\n"
    text = head + "| what | target | measured |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "decode.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
