"""What the host's side of every backbone shares: the call, and the packed history as conditioning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ....framepack.errors import FramePackError
from ....framepack.models.memo import KEY, NOTHING_KEPT, Constants
from ....framepack.nn.layers import Modulation
from ....framepack.packing.history import ContextGroup
from ....framepack.shapes import builtin
from ..aside import KEY as ASIDE
from ..aside import weights_of
from ..versions import changes_weights, prefetched


def host_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """The attention that the host chose; q, k, v ``b n l e`` -> ``b l n*e``."""
    if mask is not None:
        mask = mask.expand(q.shape[0], 1, q.shape[2], k.shape[2])
    return optimized_attention(q, k, v, q.shape[1], mask=mask, skip_reshape=True, **options)


def history_conds(positions: Any, groups: Sequence[ContextGroup], causal: bool = False) -> dict[str, Any]:
    """A section's positions and history as the host's conds."""
    layout = tuple((g.kernel, g.positions, g.tail) for g in groups)
    out = {"framepack_layout": comfy.conds.CONDConstant((positions, layout, causal))}
    return out | {f"history_{i}": comfy.conds.CONDRegular(g.latents) for i, g in enumerate(groups)}


class Hosted:
    """Mixed into a backbone's DiT: plain tensors in, the host's wrappers around the forward pass.

    `INPUTS` names what the backbone's forward takes beside latents, timestep and text.
    """

    INPUTS: tuple[str, ...] = ()

    def __init__(self, spec: Any, dtype: torch.dtype, device: Any, operations: Any):
        super().__init__(spec, operations=operations, attention=host_attention, dtype=dtype, device=device)
        self.dtype = dtype

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        transformer_options: Mapping[str, Any] | None = None,
        framepack_layout: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """x ``b c t h w`` -> velocity; `framepack_layout` tells which of the tensors in kwargs are history."""
        options = dict(transformer_options or {})
        positions, groups, causal = framepack_layout or (None, (), False)
        history = [
            ContextGroup(kernel=kernel, latents=kwargs[f"history_{i}"], positions=places, tail=tail)
            for i, (kernel, places, tail) in enumerate(groups)
        ]
        own = {name: kwargs[name] for name in self.INPUTS if kwargs.get(name) is not None}
        own |= {"causal_history": True} if causal else {}
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        wrappers = comfy.patcher_extension.get_all_wrappers(kind, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timestep, context, positions, history, own, options)

    def takes_runs(self, block: torch.nn.Module) -> bool:
        """Not where the host's layers cast, move or patch a weight in each call."""
        return super().takes_runs(block) and not any(map(changes_weights, block.modules()))

    def _forward(self, x, timestep, context, positions, history, own, transformer_options):
        blocks = [block for name in self.BLOCKS for block in getattr(self, name)]
        own = own | {"positions": positions, "history": history, "transformer_options": transformer_options}
        with prefetched(blocks, Modulation, x.device, transformer_options):
            return super().forward(x, timestep, context, **own)


class PackedModel:
    """Mixed into the host's model of a backbone: the packed history travels as conditioning."""

    HOSTED: type
    VISION = ("last_hidden_state", "")  # which of a vision encoder's outputs, and which encoder gives it

    def __init__(self, model_config: Any, device: Any = None):
        def make(dtype: torch.dtype, device: Any, operations: Any, **_: Any) -> Any:
            return self.HOSTED(model_config.spec, dtype, device, operations)

        flow = comfy.model_base.ModelType.FLOW
        comfy.model_base.BaseModel.__init__(self, model_config, flow, device=device, unet_model=make)
        self.memory_usage_factor_conds = ("history",)

    def apply_model(self, x: Tensor, t: Tensor, *args: Any, transformer_options: Any = None, **kwargs: Any) -> Tensor:
        """The host's, which denoises x at sigma t; what is constant in the run is kept."""
        options = {**(transformer_options or {}), KEY: self.constants(transformer_options or {})}
        return super().apply_model(x, t, *args, transformer_options=options, **kwargs)

    def constants(self, options: Mapping[str, Any]) -> Constants:
        """The run's: its noise levels are the sampler's, its weights those that the patcher has put in place."""
        patcher, sigmas = self.current_patcher, options.get("sample_sigmas")
        weights = weights_of(patcher)
        if weights is None:
            return NOTHING_KEPT
        levels = () if sigmas is None else self.model_sampling.timestep(sigmas[:-1]).float().tolist()
        return Constants(patcher.get_attachment(ASIDE), levels, weights)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """The host's, and positions, history and image embedding of the section. Raises FramePackError."""
        out = super().extra_conds(**kwargs)
        self.check_width("context", kwargs["cross_attn"], self.diffusion_model.spec.text_dim)
        if "framepack_positions" in kwargs:
            causal = kwargs.get("framepack_causal", False)
            out |= history_conds(kwargs["framepack_positions"], kwargs["framepack_history"], causal)
        vision, expected = kwargs.get("framepack_vision"), self.diffusion_model.spec.image_dim
        if vision is not None and expected:
            output, encoder = self.VISION
            image = vision[output]
            if image.shape[-1] != expected:
                raise FramePackError(
                    f"clip_vision_output is {image.shape[-1]} wide; this model takes {expected}. Encode the image "
                    f"with {encoder}."
                )
            out["image"] = comfy.conds.CONDRegular(image)
        return out

    def check_width(self, name: str, given: Tensor, expected: int) -> None:
        """The prompt must be of the model's own text encoder. Raises FramePackError."""
        if given.shape[-1] != expected:
            raise FramePackError(
                f"The prompt's {name} is {given.shape[-1]} wide; this model takes {expected}. Encode the prompt with "
                "the text encoder that belongs to the model."
            )

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list]:
        """For the memory estimate: history in latent values of tokens of full length."""
        groups: list[ContextGroup] = kwargs.get("framepack_history", [])
        patch = self.diffusion_model.spec.geometry.patch
        return {"history": [1, 1, patch**2 * sum(g.num_tokens(patch) for g in groups)]} if groups else {}


class PackedConfig:
    """Mixed into the host's description of a backbone's model; keys stay as they are in files.

    `stated` is the metadata that a saved copy must keep; `savable` is False for weights that the host cannot write.
    """

    MODEL: type
    stated: Mapping[str, str] = {}
    savable = True

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> Any:
        """The model, without weights."""
        return self.MODEL(self, device=device)

    def process_unet_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys as they are."""
        return state_dict

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys as they are, and what the file states, as tensors of bytes: the host writes its own metadata alone."""
        if not self.savable:
            raise FramePackError(
                "A GGUF model cannot be saved by ComfyUI. Convert it: python -m framepack convert SOURCE.gguf "
                "TARGET.safetensors."
            )
        stated = {key: torch.tensor(list(text.encode()), dtype=torch.uint8) for key, text in self.stated.items()}
        return {**state_dict, **stated}


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
