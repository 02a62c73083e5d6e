"""Saving a video while it is decoded: the most memory that a ComfyUI holds, for 60 s of video against 5 s.

python -m benchmarks.video_memory [--size PIXELS] [--rounds N] [--given-back]

A fresh ComfyUI for each length, with the built-in VAE: latents to FramePackVideo to SaveVideo. It saves five seconds
before it is watched, so that everything is loaded; then the most that the whole process holds while it saves is taken.
glibc's allocator keeps holes between pieces of memory that come and go; with a low threshold for pages of their own it
gives them back, and what is left is what the saving holds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.client import run
from tools.host import running
from tools.workflows import Graph

from .peak import Peak
from .timing import RESULTS, circumstances

FPS, SHORT, LONG = 30, 5, 60
ALLOCATORS = {
    "memory given back (MALLOC_MMAP_THRESHOLD_=65536)": {"MALLOC_MMAP_THRESHOLD_": "65536"},
    "the allocator as it is": {},
}


def graph(seconds: float, size: int, prefix: str = "first") -> dict[str, Any]:
    """A workflow that decodes and saves so many seconds."""
    sizes = {"width": size, "height": size, "length": 4 * round(seconds * FPS / 4) + 1, "batch_size": 1}
    g = Graph("video_memory", "")
    vae = g.add("VAELoader", vae_name="framepack_shapes_vae.safetensors")
    video = g.add("FramePackVideo", samples=g.add("EmptyHunyuanLatentVideo", **sizes), vae=vae, fps=float(FPS))
    g.add("SaveVideo", video=video, filename_prefix=prefix, format="auto", codec="auto")
    return g.api()


def peak(seconds: float, size: int, environment: dict[str, str]) -> int:
    """Bytes: the most that a host holds while it saves so many seconds."""
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "host", environment=environment) as host:
        run(host.url, graph(SHORT, size))
        with Peak(host.process.pid) as watched:
            run(host.url, graph(seconds, size, prefix="watched"))
        return watched.most


def main() -> None:
    """Command line; prints and writes benchmarks/results/video_memory.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--given-back", action="store_true", help="with that allocator alone")
    args = parser.parse_args()
    rows = []
    for said, environment in list(ALLOCATORS.items())[: 1 if args.given_back else None]:
        lengths = [(SHORT, LONG), (LONG, SHORT)] * args.rounds  # the order alternates
        pairs = [{n: peak(n, args.size, environment) for n in pair} for pair in lengths[: args.rounds]]
        ratio = statistics.median(pair[LONG] / pair[SHORT] for pair in pairs)
        held = ", ".join(f"{pair[LONG] / 1e6:.0f} and {pair[SHORT] / 1e6:.0f} MB" for pair in pairs)
        rows.append(f"| peak, {LONG} s / {SHORT} s, {said} | 1.05 | {ratio:.3f} ({held}) |")
    head = "# Memory of a video that is decoded while it is saved\n\n"
    head += f"{circumstances()}. {args.size}x{args.size}, {FPS} fps.\n\n"
    text = head + "| what | target | measured |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "video_memory.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
