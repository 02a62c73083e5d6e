"""The native MODEL: our DiT in the host's model classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.patcher_extension
import comfy.supported_models
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ...framepack.checkpoints import builtin
from ...framepack.errors import FramePackError
from ...framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from ...framepack.packing.history import ContextGroup
from ...framepack.units import BASE

log = logging.getLogger(__name__)

GUIDANCE = 10.0  # what the released models expect; the host's own default for HunyuanVideo is 6


def host_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """The attention that the host chose; q, k, v ``b n l e`` -> ``b l n*e``."""
    if mask is not None:
        mask = mask.expand(q.shape[0], 1, q.shape[2], k.shape[2])
    return optimized_attention(q, k, v, q.shape[1], mask=mask, skip_reshape=True, **options)


class HostedDiT(HunyuanDiT):
    """The DiT as the host calls it: plain tensors in, the host's wrappers around the forward pass."""

    def __init__(self, spec: HunyuanSpec, dtype: torch.dtype, device: Any, operations: Any):
        super().__init__(spec, operations=operations, attention=host_attention, dtype=dtype, device=device)
        self.dtype = dtype

    def forward(  # noqa: PLR0913 - the host's call
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        attention_mask: Tensor | None = None,
        control: Any = None,
        transformer_options: Mapping[str, Any] | None = None,
        framepack_layout: Any = None,
        image: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """x ``b c t h w`` -> velocity; `framepack_layout` tells which of the tensors in kwargs are history."""
        options = transformer_options or {}
        positions, groups = framepack_layout or (None, ())
        history = [
            ContextGroup(kernel=kernel, latents=kwargs[f"history_{i}"], positions=places, tail=tail)
            for i, (kernel, places, tail) in enumerate(groups)
        ]
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, dict(options)
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._run, self, wrappers)
        return executor.execute(x, timestep, context, y, guidance, attention_mask, positions, history, image, options)

    def _run(self, x, timestep, context, y, guidance, attention_mask, positions, history, image, transformer_options):
        return super().forward(
            x,
            timestep,
            context,
            y,
            guidance,
            attention_mask,
            positions=positions,
            history=history,
            image=image,
            transformer_options=transformer_options,
        )


class FramePackModel(comfy.model_base.HunyuanVideo):
    """The host's model around the DiT; the packed history travels as conditioning."""

    def __init__(self, model_config: FramePackConfig, device: Any = None):
        def make(dtype: torch.dtype, device: Any, operations: Any, **_: Any) -> HostedDiT:
            return HostedDiT(model_config.spec, dtype, device, operations)

        comfy.model_base.BaseModel.__init__(
            self, model_config, comfy.model_base.ModelType.FLOW, device=device, unet_model=make
        )
        self.memory_usage_factor_conds = ("history",)

    def encode_adm(self, **kwargs: Any) -> Tensor:
        """The pooled text. Raises FramePackError where the conditioning has none."""
        pooled = kwargs.get("pooled_output")
        if pooled is None:
            raise FramePackError("The conditioning has no pooled output; encode the prompt with this model's own CLIP.")
        return pooled

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """The host's, and positions, history and image embedding of the section."""
        out = super().extra_conds(**kwargs)
        spec, cross_attn = self.diffusion_model.spec, kwargs["cross_attn"]
        for name, came, expected in (
            ("context", cross_attn, spec.text_dim),
            ("pooled", out["y"].cond, spec.pooled_dim),
        ):
            if came.shape[-1] != expected:
                raise FramePackError(
                    f"The prompt's {name} is {came.shape[-1]} wide; this model takes {expected}. Encode the prompt "
                    "with the text encoder that belongs to the model."
                )
        out.pop("guidance", None)
        if spec.guidance:
            guidance = kwargs.get("guidance", GUIDANCE)
            out["guidance"] = comfy.conds.CONDRegular(torch.FloatTensor([guidance * 1000]))
        if "framepack_positions" in kwargs:
            groups: list[ContextGroup] = kwargs["framepack_history"]
            layout = tuple((g.kernel, g.positions, g.tail) for g in groups)
            out["framepack_layout"] = comfy.conds.CONDConstant((kwargs["framepack_positions"], layout))
            out |= {f"history_{i}": comfy.conds.CONDRegular(g.latents) for i, g in enumerate(groups)}
        image = kwargs.get("framepack_image")
        if image is not None and spec.image_dim:
            if image.shape[-1] != spec.image_dim:
                raise FramePackError(
                    f"clip_vision_output is {image.shape[-1]} wide; this model takes {spec.image_dim}. Encode the "
                    "image with sigclip_vision_patch14_384."
                )
            out["image"] = comfy.conds.CONDRegular(image)
        return out

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list]:
        """For the memory estimate: history in latent values of tokens of full length."""
        groups: list[ContextGroup] = kwargs.get("framepack_history", [])
        return {"history": [1, 1, BASE.size * sum(g.num_tokens for g in groups)]} if groups else {}


class FramePackConfig(comfy.supported_models.HunyuanVideo):
    """The host's description of the model; keys stay as they are in files."""

    def __init__(self, spec: HunyuanSpec, latent_format: Any):
        super().__init__({"image_model": "hunyuan_video"})
        self.spec, self.latent_format = spec, latent_format

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> FramePackModel:
        """The model, without weights."""
        return FramePackModel(self, device=device)

    def process_unet_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys as they are."""
        return state_dict

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys as they are."""
        return state_dict


class StatedLatentFormat(comfy.latent_formats.LatentFormat):
    """The latent format that a file's metadata states."""

    latent_channels = 16
    latent_dimensions = 3

    def __init__(self, stated: builtin.LatentFormat):
        self.stated = stated
        self.latent_rgb_factors = [list(row) for row in stated.rgb_factors]
        self.latent_rgb_factors_bias = list(stated.rgb_bias)

    def process_in(self, latent: Tensor) -> Tensor:
        """Raw to normalised."""
        return self.stated.process_in(latent)

    def process_out(self, latent: Tensor) -> Tensor:
        """Normalised to raw."""
        return self.stated.process_out(latent)
