"""VIDEO that is decoded while it is saved, so that memory does not grow with its length.

Dims: b c t h w latents, n frames, h w c pictures in [0, 1].
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import comfy.model_management
import torch
from comfy_api.latest import Input, Types
from torch import Tensor

from ...framepack.errors import FramePackError
from ...framepack.units import FRAMES_PER_LATENT

log = logging.getLogger(__name__)

SPARE = 8  # latent frames whose decoding is asked memory for: a stream holds a few at a time


def decode_stream(vae: Any, latents: Tensor) -> Iterator[Tensor]:
    """Frames ``n h w c`` of latents ``1 c t h w``, latent by latent where the VAE is causal (Wan's), else at once."""
    model = vae.first_stage_model
    causal = all(hasattr(model, name) for name in ("conv2", "decoder")) and vae.latent_channels == latents.shape[1]
    if not causal or not _is_wan(model):
        log.info("this VAE is not causal over time; the video is decoded at once")
        yield vae.decode(latents)[0]
        return
    shape = (*latents.shape[:2], min(latents.shape[2], SPARE), *latents.shape[3:])
    needed = vae.memory_used_decode(shape, vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=needed)
    yield from _causally(vae, model, latents)


@torch.no_grad()
def _causally(vae: Any, model: Any, latents: Tensor) -> Iterator[Tensor]:
    """One latent after another through the decoder's own cache: the same numbers as decoding at once."""
    from comfy.ldm.wan.vae import count_conv3d

    cache = [None] * count_conv3d(model.decoder)
    for i in range(latents.shape[2]):
        latent = latents[:, :, i : i + 1].to(device=vae.device, dtype=vae.vae_dtype)
        out = model.decoder(model.conv2(latent), feat_cache=cache, feat_idx=[0])
        yield vae.process_output(out.to(vae.output_device).float())[0].movedim(0, -1)


def _is_wan(model: Any) -> bool:
    return type(model).__module__.startswith("comfy.ldm.wan.vae") and hasattr(model, "temperal_upsample")


class StreamedVideo(Input.Video):
    """A VIDEO from latents and a VAE; stock SaveVideo takes it."""

    def __init__(self, vae: Any, latents: Tensor, fps: float):
        if latents.ndim != 5 or len(latents) != 1:
            raise FramePackError(f"latents {tuple(latents.shape)} came; expected one video, 1 c t h w")
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
        return FRAMES_PER_LATENT * self.latents.shape[2] - FRAMES_PER_LATENT + 1

    def get_frame_rate(self) -> Fraction:
        """Frames per second."""
        return self.rate

    def get_duration(self) -> float:
        """Seconds."""
        return float(self.get_frame_count() / self.rate)

    def save_to(self, path: Any, format: Any = "auto", codec: Any = "auto", metadata: dict | None = None) -> None:
        """Decode and encode, a few frames at a time. H.264 in MP4, as the host's own."""
        for name, asked, own in (("container", format, "mp4"), ("codec", codec, "h264")):
            if str(getattr(asked, "value", asked)) not in ("auto", own):
                raise FramePackError(f"the {name} {asked} was asked for; expected auto or {own}")
        options = {"movflags": "use_metadata_tags"}
        with av.open(path, mode="w", options=options, **({} if isinstance(path, str) else {"format": "mp4"})) as out:
            for key, value in (metadata or {}).items():
                out.metadata[key] = json.dumps(value)
            stream = out.add_stream("h264", rate=self.rate)
            stream.width, stream.height = self.get_dimensions()
            stream.pix_fmt = "yuv420p"
            for frames in self.frames():
                for frame in (frames * 255).clamp(0, 255).byte().cpu().numpy():
                    picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
                    out.mux(stream.encode(picture))
            out.mux(stream.encode(None))
