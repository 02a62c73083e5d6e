"""Saving a video while it is decoded: the most memory that a ComfyUI holds, for 60 s of video against 5 s.

python -m benchmarks.video_memory [--size PIXELS]

A fresh ComfyUI for each length, with the built-in VAE: latents to FramePackVideo to SaveVideo. Peaks are of the whole
process; beside them, what came on top of the memory that it held before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tools.client import run
from tools.host import running

from .timing import RESULTS, circumstances

FPS, SHORT, LONG = 30, 5, 60


def graph(seconds: float, size: int) -> dict[str, dict]:
    """A workflow that decodes and saves so many seconds."""
    sizes = {"width": size, "height": size, "length": 4 * round(seconds * FPS / 4) + 1, "batch_size": 1}
    saved = {"filename_prefix": "video", "format": "auto", "codec": "auto"}
    nodes = {
        "1": ("EmptyHunyuanLatentVideo", sizes),
        "2": ("VAELoader", {"vae_name": "framepack_shapes_vae.safetensors"}),
        "3": ("FramePackVideo", {"samples": ["1", 0], "vae": ["2", 0], "fps": float(FPS)}),
        "4": ("SaveVideo", {"video": ["3", 0], **saved}),
    }
    return {number: {"class_type": kind, "inputs": inputs} for number, (kind, inputs) in nodes.items()}


def peaks(seconds: float, size: int) -> tuple[int, int]:
    """Bytes: the most that a fresh host holds, and how much of it came with the run."""
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "host") as host:
        before = host.peak_memory
        run(host.url, graph(seconds, size))
        return host.peak_memory, host.peak_memory - before


def main() -> None:
    """Command line; prints and writes benchmarks/results/video_memory.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()
    short, long = peaks(SHORT, args.size), peaks(LONG, args.size)
    sizes = f"{args.size}x{args.size}, {FPS} fps"
    head = f"# Memory of a video that is decoded while it is saved\n\n{circumstances()}. {sizes}.\n\n"
    whole, own = (f"{b / 1e6:.0f} and {a / 1e6:.0f} MB" for a, b in zip(short, long, strict=True))
    rows = [
        f"| peak, {LONG} s / {SHORT} s | 1.05 | {long[0] / short[0]:.3f} ({whole}) |",
        f"| on top of the peak before the run | - | {own} |",
    ]
    text = head + "| what | target | measured |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "video_memory.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
