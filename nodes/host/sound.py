"""The sound of a video that is extended: kept beside its latents, and cut to a video's frames.

Dims: b batch, c channels, n samples; an AUDIO's waveform is ``b c n``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

AUDIO = "framepack_audio"  # where a LATENT holds its sound and the decoded frame at which that begins


def cut(audio: dict[str, Any], start: float, seconds: float) -> dict[str, Any]:
    """An AUDIO from `start` on for so many seconds; silence where it has no sound, before its beginning too."""
    rate, waveform = audio["sample_rate"], audio["waveform"]
    first, num = round(start * rate), round(seconds * rate)
    out = waveform.new_zeros(*waveform.shape[:-1], max(num, 0))
    there: Tensor = waveform[..., max(first, 0) : max(first + num, 0)]
    at = max(-first, 0)
    out[..., at : at + there.shape[-1]] = there
    return {"waveform": out, "sample_rate": rate}


def of_clip(audio: Any, fps: float, first: int, num_frames: int) -> dict[str, Any]:
    """What a LATENT of a clip carries of its sound: the part of frames `first` on."""
    return {} if audio is None else {AUDIO: {"audio": cut(audio, first / fps, num_frames / fps), "frame": 0}}


def moved(latent: dict[str, Any] | None, frame: int) -> dict[str, Any]:
    """What the LATENT of a whole video carries of the sound of a clip in it, which begins at a decoded frame."""
    held = (latent or {}).get(AUDIO)
    return {} if held is None else {AUDIO: {"audio": held["audio"], "frame": frame}}


def is_audio(value: Any) -> bool:
    """Is it an AUDIO with sound in it?"""
    waveform = value.get("waveform") if isinstance(value, dict) else None
    rate = value.get("sample_rate") if isinstance(value, dict) else None
    sound = isinstance(waveform, torch.Tensor) and waveform.ndim == 3 and waveform.shape[1] > 0
    return sound and isinstance(rate, int) and rate > 0
