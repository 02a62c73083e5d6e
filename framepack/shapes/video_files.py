"""Images in and videos out for the built-in model. Dims: t frames, h w pictures."""

from __future__ import annotations

from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import FramePackError, MissingPackageError


def read_image(path: Path, pixels: int) -> Tensor:
    """An image, cropped and resized, ``3 1 h w`` in [-1, 1]. Raises FramePackError for a file that is none."""
    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (pixels, pixels), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        raise FramePackError(f"{path} is not an image that can be read. Use a PNG, JPEG or WebP file.") from fault
    return rearrange(torch.from_numpy(np.asarray(fitted).copy()).float() / 127.5 - 1, "h w c -> c 1 h w")


def write_video(frames: Tensor, path: Path, fps: float = 30) -> None:
    """Write frames ``t 3 h w`` in [0, 1] as an mp4. Raises MissingPackageError without PyAV, FramePackError."""
    av = _av()
    pictures = (rearrange(frames, "t c h w -> t h w c") * 255).round().to(torch.uint8).numpy()
    try:
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=Fraction(round(fps * 1000), 1000), options={"crf": "10"})
            stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
            for picture in pictures:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode())
    except (OSError, ValueError) as fault:
        raise FramePackError(
            f"The video {path} cannot be written: {fault}. Use a new file that ends in .mp4."
        ) from fault


def _av() -> Any:
    try:
        return import_module("av")
    except ImportError as fault:
        raise MissingPackageError("Writing videos needs PyAV. Install it: pip install av.") from fault
