"""A custom node pack for the checks: a limit of the device's memory, random inputs of the released sizes, and a look at
what a model holds on the device."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import comfy.sd
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL

LIMIT = float(os.environ.get("FRAMEPACK_CHECK_GB", 0)) * 1e9
if LIMIT and torch.cuda.is_available():
    torch.cuda.set_per_process_memory_fraction(min(LIMIT / torch.cuda.get_device_properties(0).total_memory, 1.0))


def draw(*shape: int) -> torch.Tensor:
    """Random numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Anything(str):
    """A type that the host takes for every other."""

    def __ne__(self, other: object) -> bool:
        return False


class CheckText:
    """A prompt's conditioning, without a text encoder."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "checks"

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802 - the host's name
        """Sizes of tokens and of the pooled output."""
        return {"required": {"width": ("INT", {"default": 4096}), "pooled": ("INT", {"default": 768})}}

    def make(self, width: int, pooled: int) -> tuple:
        """The conditioning."""
        return ([[draw(1, 256, width), {"pooled_output": draw(1, pooled)}]],)


class CheckVAE:
    """HunyuanVideo's VAE with random weights; `width` is 128 in the released one."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("VAE",), "make", "checks"

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802 - the host's name
        """Its width."""
        return {"required": {"width": ("INT", {"default": 128})}}

    def make(self, width: int) -> tuple:
        """The VAE."""
        sizes = {"double_z": True, "z_channels": 16, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": width}
        sizes |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
        sizes |= {"conv3d": True, "time_compress": 4}
        with torch.device("meta"):
            shapes = {k: v.shape for k, v in AutoencoderKL(ddconfig=sizes, embed_dim=16).state_dict().items()}
        weights = {k: draw(*shape) / max(shape[1:].numel(), 1) ** 0.5 for k, shape in shapes.items()}
        vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": sizes, "embed_dim": 16}})
        vae.latent_dim, vae.latent_channels = 3, 16
        vae.upscale_ratio, vae.upscale_index_formula = (lambda t: max(0, 4 * t - 3), 8, 8), (4, 8, 8)
        vae.memory_used_decode = lambda shape, dtype: 1500 * shape[2:].numel() * 4 * 8 * 8 * 4
        return (vae,)


class CheckLatents:
    """Random latents of HunyuanVideo's VAE; the sizes are those of the frames."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "make", "checks"

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802 - the host's name
        """Sizes in pixels and frames, and a seed."""
        return {"required": {name: ("INT", {"default": 0}) for name in ("width", "height", "length", "seed")}}

    def make(self, width: int, height: int, length: int, seed: int) -> tuple:
        """The latents."""
        shape = (1, 16, (length + 3) // 4, height // 8, width // 8)
        return ({"samples": torch.randn(shape, generator=torch.Generator().manual_seed(seed))},)


class CheckMemory:
    """Writes what the model holds, and the most that the process held since the last look, once a value is there."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "checks", True

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802 - the host's name
        """What to wait for, and a model to look at."""
        return {"required": {"after": (Anything("*"),)}, "optional": {"model": ("MODEL",)}}

    def look(self, after: object, model: object = None) -> dict:
        """Write the file that FRAMEPACK_CHECK names."""
        found = {"model": model.model_size(), "loaded": model.loaded_size()} if model is not None else {}
        if torch.cuda.is_available():
            found |= {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
            torch.cuda.reset_peak_memory_stats()
        Path(os.environ["FRAMEPACK_CHECK"]).write_text(json.dumps(found), "utf-8")
        return {}


class CheckWithoutAside:
    """Models that the pack loads from now on hide no layer from the host."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "change", "checks", True

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802 - the host's name
        """None."""
        return {"required": {}}

    def change(self) -> dict:
        """Replace the function of the pack that puts layers aside."""
        (loading,) = (module for name, module in sys.modules.items() if name.endswith("nodes.host.loading"))
        loading.set_aside = lambda dit: None
        return {}


NODES = (CheckText, CheckVAE, CheckLatents, CheckMemory, CheckWithoutAside)
NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in NODES}
