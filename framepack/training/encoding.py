"""From a folder of videos to a cache of latents and text, each encoded once.

What is there already is kept, so a run that stopped goes on where it was. A file is encoded again where it, its size on
screen, or the encoder has changed; a caption that changed costs its text only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..store.digest import digest
from .cache import Clip, Index, clip_path, is_whole, read_tensors, text_path, write_tensors
from .config import Data
from .media import MediaError, Source, clips_of, sources_of

log = logging.getLogger(__name__)
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey (BT.601)


class Encoder(Protocol):
    """Makes latents and text as a model takes them. `name` changes with everything that its results depend on.

    Latents as its VAE has them are its latents times `scale` plus `shift`, one each a channel; empty where unknown.
    """

    name: str
    scale: Sequence[float]
    shift: Sequence[float]

    def latents(self, pixels: Tensor) -> Tensor:
        """pixels ``3 4n+1 h w`` in [-1, 1] -> scaled latents ``c n+1 h/8 w/8``."""
        ...

    def text(self, caption: str) -> dict[str, Tensor]:
        """What the model takes for a caption, without a batch, by the argument's name."""
        ...


def encode(data: Data, encoder: Encoder, grey: bool = False, prompts: Iterable[str] = ()) -> Index:
    """Encode a data set into its cache: clips (with `grey` also without colours), captions, and further prompts.

    Raises MediaError for a file that cannot be used where data.faults is "stop", or where none can be used.
    """
    assert data.folder is not None, "without a folder there is nothing to encode"
    sources, left_out = sources_of(data.folder)
    if left_out and data.faults == "stop":
        name = next(iter(left_out))
        raise MediaError(f"{name}: {left_out[name]}. Set data.faults to 'skip' to leave such files out.")
    clips: list[Clip] = []
    for number, source in enumerate(sources, 1):
        log.info("%d of %d: %s", number, len(sources), source.name)
        try:
            clips += encode_source(source, data, encoder, grey)
        except MediaError as fault:
            if data.faults == "stop":
                raise MediaError(
                    f"{source.name}: {fault}. Set data.faults to 'skip' to leave such files out."
                ) from fault
            left_out[source.name] = str(fault)
    if not clips:
        name, reason = next(iter(left_out.items()), (str(data.folder), "it holds no videos or images"))
        raise MediaError(f"Nothing in {data.folder} can be used. {name}: {reason}.")
    captions = dict.fromkeys(caption for clip in clips for caption in clip.captions)
    encode_text(data.cache, encoder, ["", *captions, *prompts])
    scaled = {"scale": list(encoder.scale), "shift": list(encoder.shift)}
    index = Index(encoder=encoder.name, clips=tuple(clips), grey=grey, left_out=left_out, **scaled)
    index.write(data.cache)
    return index


def encode_source(source: Source, data: Data, encoder: Encoder, grey: bool) -> list[Clip]:
    """The clips of one file, encoded unless they are there. Raises MediaError."""
    stat = source.path.stat()
    key = {"name": source.name, "size": stat.st_size, "changed": stat.st_mtime_ns, "encoder": encoder.name}
    key |= {"base": data.base, "fps": data.fps, "longest": data.longest, "grey": grey}
    file = f"{digest(key)[:32]}.safetensors"
    path = clip_path(data.cache, file)
    if is_whole(path):
        tensors = read_tensors(path)
    else:
        tensors = _encoded(source.path, data, encoder, grey)
        write_tensors(path, tensors)
    return [
        Clip(file=file, name=name, shape=tuple(latents.shape), captions=source.captions)  # type: ignore[arg-type]
        for name, latents in tensors.items()
        if not name.endswith(".grey")
    ]


@torch.no_grad()
def _encoded(path: Path, data: Data, encoder: Encoder, grey: bool) -> dict[str, Tensor]:
    tensors = {}
    for number, pixels in enumerate(clips_of(path, data.fps, data.base, data.longest)):
        tensors[str(number)] = encoder.latents(pixels)
        if grey:
            tensors[f"{number}.grey"] = encoder.latents(without_colour(pixels))
    return tensors


def without_colour(pixels: Tensor) -> Tensor:
    """pixels ``3 t h w`` in grey."""
    luma = (pixels * torch.tensor(LUMA).view(3, 1, 1, 1)).sum(0, keepdim=True)
    return luma.expand_as(pixels).contiguous()


@torch.no_grad()
def encode_text(cache: Path, encoder: Encoder, captions: Iterable[str]) -> None:
    """Encode captions that are not in a cache yet."""
    for caption in dict.fromkeys(captions):
        path = text_path(cache, encoder.name, caption)
        if not is_whole(path):
            write_tensors(path, encoder.text(caption))
