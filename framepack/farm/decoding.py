"""Decoding and saving on a worker of its own, while further sections are sampled.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import IO, Any

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

LOOK = 0.5  # seconds between two looks at whether the decoder is there
PIECE = 2**24  # bytes of the file that travel at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """The file that a run decodes into, with which VAE, where."""

    out: Path
    vae: Path
    fps: float = 30.0
    device: str = "cpu"

    def check(self) -> None:
        """Raises FarmError for a file that cannot be written."""
        if self.out.suffix.lower() != ".mp4":
            raise FarmError(f"The video's name must end in .mp4; got {self.out.name}.")


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
    """An actor that is given a video's latents in order, and makes its file. It lies on the actor's machine."""

    def __init__(self, video: dict[str, Any], kept: tuple[int, int], threads: int):
        self.video, self.kept, self.made, self.threads = video, range(*kept), 0, threads
        self.stream = TileStream(self._decode, STREAMED)

    def load(self) -> None:
        """Load the VAE and begin the file. Raises CheckpointError for another file, FarmError, MissingPackageError."""
        torch.set_num_threads(self.threads)
        self.device = self.video["device"]
        vae = load_vae(Path(self.video["vae"]))
        try:
            self.vae = vae.to(self.device)
        except (RuntimeError, AssertionError) as fault:  # what torch raises for a device that it lacks
            raise FarmError(
                f"The VAE does not load on the device {self.device!r} ({str(fault)[:200]}). Choose another: "
                "--decode-device."
            ) from fault
        self.writer = _Writer(self.video["fps"])

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents.to(self.device))

    @torch.no_grad()
    def push(self, latents: Tensor, ends: bool) -> int:
        """Raw latents ``1 c t h w`` that follow those before; `ends` a clip that decodes on its own. Frames so far."""
        torch.set_num_threads(self.threads)  # a number that each thread of Python has for itself
        self._write(self.stream.push(latents))
        if ends:
            self._write(self.stream.flush())
        return self.made

    def finish(self) -> tuple[int, int]:
        """Close the file: its frames and bytes."""
        return self.made, self.writer.close()

    def piece(self, start: int) -> bytes:
        """Some of the file's bytes."""
        return self.writer.piece(start)

    def _write(self, pieces: Iterable[Tensor]) -> None:
        for piece in pieces:
            for frame in (piece[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1):  # 3 h w
                if self.made in self.kept:
                    self.writer.add(frame)
                self.made += 1


class _Writer:
    """An mp4 in a temporary file without a name, which no death of its process leaves behind."""

    def __init__(self, fps: float):
        try:
            self.av = import_module("av")
        except ImportError as fault:
            raise MissingPackageError("Writing videos needs PyAV. Install it: pip install av.") from fault
        self.held: IO[bytes] = tempfile.NamedTemporaryFile(delete=False)  # noqa: SIM115 - PyAV wants a name
        with suppress(OSError):
            os.unlink(self.held.name)
        self.file = self.av.open(self.held, "w", format="mp4")
        self.video = self.file.add_stream("libx264", rate=Fraction(round(fps * 1000), 1000), options={"crf": "10"})
        self.video.pix_fmt, self.opened = "yuv420p", False

    def add(self, frame: Tensor) -> None:
        """One frame ``3 h w`` in [0, 1]."""
        picture = (frame.permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().contiguous().numpy()
        if not self.opened:
            self.video.height, self.video.width = picture.shape[:2]
            self.opened = True
        self.file.mux(self.video.encode(self.av.VideoFrame.from_ndarray(picture, format="rgb24")))

    def close(self) -> int:
        """Write what is left; the file's bytes."""
        self.file.mux(self.video.encode())
        self.file.close()
        self.held.flush()
        return self.held.seek(0, os.SEEK_END)

    def piece(self, start: int) -> bytes:
        """Some of its bytes, from `start` on."""
        self.held.seek(start)
        return self.held.read(PIECE)


@dataclass(kw_only=True)
class Decoding:
    """The driver's side: gives latents to the decoder as they become gapless from the video's beginning on."""

    job: JobFile
    make: Callable[[], Any]  # gives a new decoder
    decoder: Any = None
    given: int = 0  # latent frames
    asked: list[Any] = field(default_factory=list)

    def begin(self, ray: Any, waits: Callable[[], None]) -> None:
        """Make the decoder and wait until its VAE is loaded; `waits` is called meanwhile.

        Raises FramePackError where it cannot be, and what `waits` raises.
        """
        self.decoder = self.make()
        loaded = self.decoder.load.remote()
        while not ray.wait([loaded], timeout=LOOK)[0]:
            waits()
        try:
            ray.get(loaded)
        except ray.exceptions.RayTaskError as fault:
            raise FarmError(f"The video cannot be decoded: {str(fault.cause)[-400:]}") from fault
        except ray.exceptions.RayError as fault:
            raise FarmError(f"The decoder does not start: {str(fault)[-400:]}") from fault

    def feed(self, timeline: dict[int | str, Tensor]) -> None:
        """Give what is new at the beginning."""
        if self.decoder is None:  # it died
            self.decoder = self.make()
            self.asked = [self.decoder.load.remote()]
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

    def finish(self, ray: Any, timeline: dict[int | str, Tensor], out: Path) -> int:
        """Wait for the file and take it; its frames. A decoder that has died begins again, once."""
        self.feed(timeline)
        for last in (False, True):
            try:
                ray.get(self.asked)
                frames, size = ray.get(self.decoder.finish.remote())
                self._fetch(ray, size, out)
                return frames
            except ray.exceptions.RayTaskError as fault:
                raise FarmError(f"The video cannot be decoded: {str(fault.cause)[-400:]}") from fault
            except ray.exceptions.RayError as fault:
                if last:
                    raise FarmError(f"The decoder died twice ({type(fault).__name__}). Decode in ComfyUI.") from fault
                self.decoder, self.given, self.asked = None, 0, []
                self.feed(timeline)
        raise AssertionError

    def _fetch(self, ray: Any, size: int, out: Path) -> None:
        """Copy the decoder's file, which appears complete or not at all."""
        part = out.with_name(out.name + ".part")
        with part.open("wb") as file:
            for start in range(0, size, PIECE):
                file.write(ray.get(self.decoder.piece.remote(start)))
        part.replace(out)

    def end(self, ray: Any) -> None:
        """End the decoder."""
        if self.decoder is not None:
            ray.kill(self.decoder)


def _ends(plan: Plan) -> list[int]:
    """Where clips that decode on their own end, in latent frames."""
    return [clip.stop for clip in plan.clips]
