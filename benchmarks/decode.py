"""Decoding a video: HunyuanVideo's VAE against the reference's windows, Wan's against the host's own node.

python -m benchmarks.decode [--rounds N]

Three sections by HunyuanVideo's VAE, every latent once, against windows: as each section of the inverted order is
finished, its latents and as many after them, 18 (19 in the last, which has the start latent), are decoded and blended
over 33 frames into what there was. A decode of either kind goes through diffusers' HunyuanVideo VAE, narrow and with
random weights, whose own tiles in time are 5 latents every 3.

The built-in VAE, which is Wan's, decodes in a real ComfyUI: FramePackVAEDecode against VAEDecode, in turn.
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

from framepack.units import pixel_frames
from framepack.vae.tiles import TileStream, decode_tiled
from tools.client import run
from tools.host import running
from tools.shim.sitecustomize import mend_torchvision
from tools.workflows import Graph

from .timing import RESULTS, circumstances, ratio, rounds, shown

SECTION, SECTIONS = 9, 3
NUM_LAT_FRAMES = SECTION * SECTIONS + 1
BLENDED = pixel_frames(SECTION)
GRID = (8, 8)  # latent height and width
SIZES = {"width": 192, "height": 128, "length": 9, "batch_size": 1}  # pixels and frames of the host's


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


def graph(node: str, factor: float) -> dict[str, Any]:
    """A workflow that decodes by a node; latents times another factor are none that the host has kept."""
    g = Graph("decode", "")
    latents = g.add("LatentMultiply", samples=g.add("EmptyHunyuanLatentVideo", **SIZES), multiplier=factor)
    images = g.add(node, samples=latents, vae=g.add("VAELoader", vae_name="framepack_shapes_vae.safetensors"))
    g.add("PreviewAny", source=g.add("GetImageSize", image=images))
    return g.api()


def wan(num: int) -> str:
    """A row: seconds of one node's decode over the other's, in one host."""
    factors = count()

    def decode(node: str) -> Callable[[], object]:
        return lambda: run(host.url, graph(node, 1 + next(factors) / 8))

    with tempfile.TemporaryDirectory() as name, running(Path(name) / "host") as host:
        times = rounds({"ours": decode("FramePackVAEDecode"), "host": decode("VAEDecode")}, num)
    what = f"built-in VAE, {SIZES['width']}x{SIZES['height']}, {SIZES['length']} frames"
    return f"| {what}: FramePackVAEDecode / VAEDecode | - | {shown(ratio(times, 'ours', 'host'), 3)} |"


def main() -> None:
    """Command line; prints and writes benchmarks/results/decode.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rows = [*hunyuan(args.rounds), wan(args.rounds)]
    head = f"# Decoding\n\n{circumstances()}. Medians of paired ratios, with quartiles.\n\n"
    text = head + "| what | target | measured |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "decode.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
