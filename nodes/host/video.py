"""VIDEO that is decoded while it is saved, so that memory does not grow with its length.

Dims: b c t h w latents, n frames, h w c pictures in [0, 1].
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from comfy_api.latest import Input, Types
from torch import Tensor

from ...framepack.errors import FramePackError, LatentSizeError
from ...framepack.units import pixel_frames
from .decoding import check_latents, decode_stream


class StreamedVideo(Input.Video):
    """A VIDEO from latents and a VAE; stock SaveVideo takes it."""

    def __init__(self, vae: Any, latents: Tensor, fps: float):
        check_latents(vae, latents)
        if len(latents) != 1:
            raise LatentSizeError(f"latents of {len(latents)} videos came; expected one. Take one by LatentFromBatch.")
        self.vae, self.latents, self.rate = vae, latents, Fraction(round(fps * 1000), 1000)

    def get_components(self) -> Any:
        """All frames at once, for nodes that need them."""
        return Types.VideoComponents(images=torch.cat(list(self.frames())), audio=None, frame_rate=self.rate)

    def frames(self) -> Iterator[Tensor]:
        """Frames ``n h w c``, some at a time."""
        return decode_stream(self.vae, self.latents)

    def get_dimensions(self) -> tuple[int, int]:
        """Width and height in pixels."""
        factor = self.vae.spacial_compression_decode()
        return self.latents.shape[4] * factor, self.latents.shape[3] * factor

    def get_frame_count(self) -> int:
        """How many frames it has."""
        return pixel_frames(self.latents.shape[2])

    def get_frame_rate(self) -> Fraction:
        """Frames per second."""
        return self.rate

    def get_duration(self) -> float:
        """Seconds."""
        return float(self.get_frame_count() / self.rate)

    def save_to(self, path: Any, format: Any = "auto", codec: Any = "auto", metadata: dict | None = None) -> None:
        """Decode and encode, a few frames at a time. H.264 in MP4, as the host's own.

        A file has its name once it is whole, so that a cancel or a fault leaves none.
        """
        for name, asked, own in (("container", format, "mp4"), ("codec", codec, "h264")):
            if str(getattr(asked, "value", asked)) not in ("auto", own):
                raise FramePackError(f"the {name} {asked} was asked for; expected auto or {own}")
        if not isinstance(path, str):
            self._encode(path, metadata or {})
            return
        part = f"{path}.part"
        try:
            self._encode(part, metadata or {})
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)

    def _encode(self, file: Any, metadata: dict) -> None:
        with av.open(file, mode="w", format="mp4", options={"movflags": "use_metadata_tags"}) as out:
            for key, value in metadata.items():
                out.metadata[key] = json.dumps(value)
            stream = out.add_stream("h264", rate=self.rate)
            stream.width, stream.height = self.get_dimensions()
            stream.pix_fmt = "yuv420p"
            for frames in self.frames():
                for frame in (frames * 255).clamp(0, 255).byte().cpu().numpy():
                    picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
                    out.mux(stream.encode(picture))
            out.mux(stream.encode(None))
