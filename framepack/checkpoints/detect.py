"""Which of the known key layouts a checkpoint has, and what one looks like that is none of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from ..models.backbones import backbones

PREFIXES = ("model.diffusion_model.", "transformer.", "diffusion_model.")
# Other models, by a piece of a key that they have and none of the backbones has. The first that fits is named.
OTHERS = (
    ("lora_", "a LoRA (load it with FramePack LoRA)"),
    ("lokr_", "a LoRA (load it with FramePack LoRA)"),
    ("vace_", "Wan 2.1 VACE"),
    ("control_adapter.", "Wan with camera control"),
    ("casual_audio_encoder.", "Wan from speech"),
    ("audio_proj.", "Wan or Hunyuan from speech"),
    ("txt_in.individual_token_refiner.", "a part of HunyuanVideo"),
    ("transformer_blocks.0.img_mod.1.", "Qwen-Image"),
    ("double_blocks.0.img_attn.norm.", "Flux"),
    ("double_stream_modulation_img.", "Flux 2"),
    ("joint_blocks.0.", "Stable Diffusion 3"),
    ("input_blocks.0.0.", "Stable Diffusion 1, 2 or XL"),
    ("down_blocks.0.resnets.", "a UNet or a VAE of diffusers"),
    ("patchify_proj.", "LTX-Video"),
    ("adaln_single.", "PixArt or LTX-Video"),
    ("patch_embed.proj.", "CogVideoX or another image transformer"),
    ("cap_embedder.", "Lumina"),
    ("decoder.conv_", "a VAE"),
    ("decoder.mid", "a VAE"),
    ("text_model.", "a CLIP text or vision encoder"),
    ("encoder.block.0.layer.", "a T5 text encoder"),
    ("model.layers.0.", "a language model"),
)

Value = TypeVar("Value")


def strip_prefix(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Take a known prefix off the keys that have it; without it, everything stays."""
    marks = {mark for backbone in backbones() for mark in (backbone.own, backbone.original)}
    for prefix in PREFIXES:
        if any(prefix + mark in weights for mark in marks):
            return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    return dict(weights)


def without_prefix(name: str) -> str:
    """A tensor's or layer's name without a known prefix."""
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def ancestors(key: str) -> list[str]:
    """The modules in which a tensor may be, by its key, the innermost first."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]


def looks_like(keys: Iterable[str]) -> str:
    """What a file of no known backbone seems to hold."""
    held = list(keys)
    for piece, name in OTHERS:
        if any(piece in key for key in held):
            return f"it looks like {name}"
    return f"its first tensor is {held[0]}" if held else "it holds no tensors"


def known() -> str:
    """The backbones, for messages."""
    *others, last = (backbone.name for backbone in backbones())
    return f"{', '.join(others)} or {last}"
