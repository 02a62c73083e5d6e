"""VIDEO that is decoded while it is saved, so that memory does not grow with its length.

The host's own class encodes it, in every container, codec, depth and colour space that this host offers: it asks its
images for a shape and then for one frame after another, and gets frames that are decoded as they are asked for.

Dims: b c t h w latents, n frames, h w c pictures in [0, 1].
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import Input, InputImpl, Types
from torch import Tensor

from ...framepack.errors import LatentSizeError
from .decoding import decode_stream, num_frames, within
from .frame_streams import AUTO
from .sound import cut
from .vaes import check_latents, geometry_of


class StreamedFrames:
    """Frames ``n h w c`` of a video, decoded while they are read; all that the host's encoder asks of a tensor."""

    def __init__(self, video: StreamedVideo):
        self.video = video
        width, height = video.get_dimensions()
        self.shape = torch.Size((video.get_frame_count(), height, width, 3))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for frames in self.video.frames():
            yield from frames


class StreamedVideo(Input.Video):
    """A VIDEO from latents and a VAE: the frames from `first` up to `stop`; stock SaveVideo takes it.

    `sound` is an AUDIO, or None, and the frame at which it begins.
    """

    def __init__(
        self,
        vae: Any,
        latents: Tensor,
        fps: float | Fraction,
        grid: str = AUTO,
        *,
        clips: Sequence[int] | None = None,
        first: int = 0,
        stop: int | None = None,
        sound: tuple[Any, int] = (None, 0),
    ):
        check_latents(vae, latents, clips)
        if len(latents) != 1:
            raise LatentSizeError(
                f"FramePack Video takes the latents of one video; got {len(latents)}. Take one with LatentFromBatch."
            )
        self.vae, self.latents, self.grid, self.clips = vae, latents, grid, clips
        self.rate = Fraction(round(fps * 1000), 1000)
        self.first, self.stop = first, num_frames(vae, latents, clips) if stop is None else stop
        self.sound = sound
        self.source: str | None = None  # a file of it, once one has been asked for

    def frames(self) -> Iterator[Tensor]:
        """Frames ``n h w c``, some at a time; what lies before the first is decoded and left out."""
        return within(decode_stream(self.vae, self.latents, self.grid, self.clips), self.first, self.stop)

    def get_components(self) -> Any:
        """All frames at once, for nodes that need them."""
        images = torch.cat(list(self.frames()))
        return Types.VideoComponents(images=images, audio=self.get_audio(), frame_rate=self.rate)

    def get_audio(self) -> dict[str, Any] | None:
        """Its sound, as long as its frames; None for none."""
        audio, begins = self.sound
        if audio is None:
            return None
        return cut(audio, float((self.first - begins) / self.rate), self.get_duration())

    def get_dimensions(self) -> tuple[int, int]:
        """Width and height in pixels."""
        factor = geometry_of(self.vae).spatial
        return self.latents.shape[4] * factor, self.latents.shape[3] * factor

    def get_frame_count(self) -> int:
        """How many frames it has."""
        return self.stop - self.first

    def get_frame_rate(self) -> Fraction:
        """Frames per second."""
        return self.rate

    def get_duration(self) -> float:
        """Seconds."""
        return float(self.get_frame_count() / self.rate)

    def get_bit_depth(self) -> int:
        """Bits of a channel, unless SaveVideo asks for more."""
        return 8

    def get_color_space(self) -> str:
        """What the VAE decodes to."""
        return "sRGB"

    def get_stream_source(self) -> str:
        """The path of a file of this video in the temporary folder, written when it is first asked for."""
        if self.source is None or not Path(self.source).is_file():
            folder = Path(folder_paths.get_temp_directory())
            folder.mkdir(parents=True, exist_ok=True)
            path = str(folder / f"framepack_{uuid.uuid4().hex[:12]}.mp4")
            self.save_to(path)
            self.source = path
        return self.source

    def as_trimmed(
        self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = False
    ) -> StreamedVideo | None:
        """The part from `start_time` on, in seconds, from the end if negative, and for `duration`, 0 to the end.

        None where nothing is left, or with `strict_duration` where less than `duration` is.
        """
        ahead = round((start_time or 0) * self.rate)
        first = min(self.first + ahead if ahead >= 0 else max(self.stop + ahead, self.first), self.stop)
        wanted = round((duration or 0) * self.rate)
        stop = min(first + wanted, self.stop) if wanted else self.stop
        if first == stop or (strict_duration and stop - first < wanted):
            return None
        how = {"clips": self.clips, "first": first, "stop": stop, "sound": self.sound}
        return StreamedVideo(self.vae, self.latents, self.rate, self.grid, **how)

    def save_to(
        self, path: Any, format: Any = "auto", codec: Any = "auto", metadata: dict | None = None, **options: Any
    ) -> None:
        """Decode and encode, frame by frame, with the options that this host's SaveVideo passes.

        A file has its name once it is whole, so that a cancel or a fault leaves none.
        """
        if not isinstance(path, str | os.PathLike):
            with open(self.get_stream_source(), "rb") as file:
                shutil.copyfileobj(file, path)
            return
        whole = Path(path)
        part = whole.with_name(f"{whole.stem}.part{whole.suffix}")
        components = Types.VideoComponents(images=StreamedFrames(self), audio=self.get_audio(), frame_rate=self.rate)
        try:
            InputImpl.VideoFromComponents(components).save_to(str(part), format, codec, metadata, **options)
            part.replace(whole)
        finally:
            part.unlink(missing_ok=True)
