"""Decoding and saving on a worker of its own, while further sections are sampled.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import CheckpointError, MissingPackageError
from ..job_file import JobFile
from ..planning.plan import Plan
from ..vae.tiles import STREAMED, TileStream
from ..vae.wan import WanVAE, WanVAESpec
from .facts import FarmError


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """The file that a run decodes into, with which VAE, where."""

    out: Path
    vae: Path
    fps: float = 30.0
    device: str = "cpu"

    def check(self) -> None:
        """Raises FarmError for a file that exists, CheckpointError for what is no VAE of Wan's kind."""
        if self.out.exists():
            raise FarmError(f"The video must be a new file; {self.out} exists. Choose another name: --video FILE.")
        if self.out.suffix.lower() != ".mp4":
            raise FarmError(f"The video's name must end in .mp4; got {self.out.name}.")
        load_vae(self.vae)


def load_vae(path: Path) -> WanVAE:
    """A VAE of Wan 2.1's kind, of any width. Raises CheckpointError for another file."""
    remedy = "Use wan_2.1_vae or the built-in VAE; decode HunyuanVideo's latents in ComfyUI."
    try:
        weights = load_file(path)
        vae = WanVAE(WanVAESpec(width=weights["decoder.head.2.weight"].shape[1]))
        vae.load_state_dict(weights)
    except (OSError, SafetensorError, LookupError, RuntimeError) as fault:
        raise CheckpointError(f"{path} is no VAE of Wan's kind ({str(fault)[:120]}). {remedy}") from fault
    return vae.eval().requires_grad_(False)


class Decoder:
    """An actor that is given a video's latents in order, and writes its frames."""

    def __init__(self, vae: str, out: str, fps: float, device: str, kept: tuple[int, int], threads: int):
        torch.set_num_threads(threads)
        self.vae = load_vae(Path(vae)).to(device)
        self.stream = TileStream(self._decode, STREAMED)
        self.kept, self.made, self.device = range(*kept), 0, device
        self.writer = _Writer(Path(out), fps)

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents.to(self.device))

    @torch.no_grad()
    def push(self, latents: Tensor, ends: bool) -> int:
        """Raw latents ``1 c t h w`` that follow those before; `ends` a clip that decodes on its own. Frames so far."""
        self._write(self.stream.push(latents))
        if ends:
            self._write(self.stream.flush())
        return self.made

    def finish(self) -> int:
        """Close the file; its frames."""
        self.writer.close()
        return self.made

    def _write(self, pieces: Iterable[Tensor]) -> None:
        for piece in pieces:
            for frame in (piece[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1):  # 3 h w
                if self.made in self.kept:
                    self.writer.add(frame)
                self.made += 1


class _Writer:
    """An mp4 that appears under its name when it is closed."""

    def __init__(self, out: Path, fps: float):
        self.out, self.part = out, out.with_name(out.name + ".part.mp4")
        try:
            self.av = import_module("av")
        except ImportError as fault:
            raise MissingPackageError("Writing videos needs PyAV. Install it: pip install av.") from fault
        self.file = self.av.open(str(self.part), "w")
        self.video = self.file.add_stream("libx264", rate=Fraction(round(fps * 1000), 1000), options={"crf": "10"})
        self.video.pix_fmt, self.opened = "yuv420p", False

    def add(self, frame: Tensor) -> None:
        """One frame ``3 h w`` in [0, 1]."""
        picture = (frame.permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().contiguous().numpy()
        if not self.opened:
            self.video.height, self.video.width = picture.shape[:2]
            self.opened = True
        self.file.mux(self.video.encode(self.av.VideoFrame.from_ndarray(picture, format="rgb24")))

    def close(self) -> None:
        """Write what is left."""
        self.file.mux(self.video.encode())
        self.file.close()
        self.part.replace(self.out)


@dataclass(kw_only=True)
class Decoding:
    """The driver's side: gives latents to the decoder as they become gapless from the video's beginning on."""

    job: JobFile
    make: Any  # gives a new decoder
    decoder: Any = None
    given: int = 0  # latent frames
    asked: list[Any] = field(default_factory=list)

    def feed(self, timeline: dict[int | str, Tensor]) -> None:
        """Give what is new at the beginning."""
        if self.decoder is None:
            self.decoder = self.make()
        for stop in _ends(self.job.plan):
            start, there = self.given, self.given
            while there < stop and there in timeline:
                there += 1
            if there > start:
                latents = torch.cat([timeline[frame] for frame in range(start, there)], 2)
                self.asked.append(self.decoder.push.remote(self.job.raw(latents), there == stop))
                self.given = there
            if there < stop:
                return

    def finish(self, ray: Any, timeline: dict[int | str, Tensor]) -> int:
        """Wait for the file; its frames. A decoder that has died begins again, once."""
        self.feed(timeline)
        for last in (False, True):
            try:
                ray.get(self.asked)
                return ray.get(self.decoder.finish.remote())
            except ray.exceptions.RayTaskError as fault:
                raise FarmError(f"The video cannot be decoded: {str(fault.cause)[-400:]}") from fault
            except ray.exceptions.RayError as fault:
                if last:
                    raise FarmError(f"The decoder died twice ({type(fault).__name__}). Decode in ComfyUI.") from fault
                self.decoder, self.given, self.asked = None, 0, []
                self.feed(timeline)
        raise AssertionError


def _ends(plan: Plan) -> list[int]:
    """Where clips that decode on their own end, in latent frames."""
    return [clip.stop for clip in plan.clips]
