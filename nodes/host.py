"""Everything that touches the host's internals: the native MODEL and CLIP, sampling, and folders.

Written for ComfyUI 0.3.75 and later; what differs between versions is looked up when used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from ..framepack.checkpoints import builtin
from ..framepack.checkpoints.detect import strip_prefix
from ..framepack.errors import CheckpointError, FramePackError
from ..framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from ..framepack.models.text import TextEncoder, Tokenizer
from ..framepack.packing.history import ContextGroup

log = logging.getLogger(__name__)
GUIDANCE = 10.0  # what the released models expect; the host's own default for HunyuanVideo is 6
IDENTITY = "framepack.identity"


def register_assets() -> None:
    """List the built-in model among the host's files, and lay its start image beside the user's, if absent."""
    for kind in ("diffusion_models", "vae", "text_encoders"):
        folder_paths.add_model_folder_path(kind, str(builtin.ASSETS / kind))
    for picture in (builtin.ASSETS / "input").glob("*.png"):
        target = Path(folder_paths.get_input_directory()) / picture.name
        if not target.exists():
            try:
                shutil.copyfile(picture, target)
            except OSError as fault:
                log.warning("The example image %s could not be laid into the input folder: %s", picture.name, fault)


def list_files(kind: str) -> list[str]:
    """Files that the host knows of a kind."""
    return folder_paths.get_filename_list(kind)


def find_file(kind: str, name: str) -> str:
    """Full path of a listed file. Raises FramePackError where it is gone."""
    path = folder_paths.get_full_path(kind, name)
    if path is None:
        raise FramePackError(f"{name!r} is not among the {kind} files; refresh the list and choose one that is.")
    return path


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
        for name, came, expected in (("context", cross_attn, spec.text_dim), ("pooled", out["y"].cond, spec.pooled_dim)):
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
        if kwargs.get("framepack_image") is not None:
            out["image"] = comfy.conds.CONDRegular(kwargs["framepack_image"])
        return out

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list]:
        """For the memory estimate."""
        return {"history": [list(g.latents.shape) for g in kwargs.get("framepack_history", ())]}


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


def load_model(path: str) -> comfy.model_patcher.ModelPatcher:
    """MODEL from a file. Raises CheckpointError for a file that is none of ours."""
    try:
        weights, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except (ValueError, OSError, RuntimeError) as fault:
        raise CheckpointError(f"{Path(path).name} cannot be read ({fault}); it may be cut short: fetch it again.") from fault
    weights, metadata = strip_prefix(weights), metadata or {}
    try:
        spec = HunyuanSpec.from_shapes({k: tuple(v.shape) for k, v in weights.items()}, metadata)
    except CheckpointError as fault:
        raise CheckpointError(f"{Path(path).name}: {fault}") from None
    stated = builtin.read_latent_format(metadata)
    config = FramePackConfig(spec, StatedLatentFormat(stated) if stated else comfy.latent_formats.HunyuanVideo())
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=list(config.supported_inference_dtypes),
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    cast = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    identity = digest(weights)
    model = config.get_model(weights).to(offload)
    _check_shapes(model.diffusion_model, weights, Path(path).name)
    model.load_model_weights(weights)
    patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = patcher_class(model, load_device=device, offload_device=offload)
    patcher.set_attachments(IDENTITY, identity)
    patcher.cached_patcher_init = (load_model, (path,))
    log.info("%s: %d double, %d single blocks, %d wide", Path(path).name, spec.double_blocks, spec.single_blocks, spec.width)
    return patcher


def _check_shapes(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    expected = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    if missing := sorted(expected.keys() - weights.keys()):
        raise CheckpointError(f"{name}: {len(missing)} tensors are missing, such as {missing[0]}; fetch the file again.")
    for key, shape in expected.items():
        if tuple(weights[key].shape) != shape:
            raise CheckpointError(f"{name}: {key} is {tuple(weights[key].shape)}; expected {shape}.")


def digest(weights: Mapping[str, Tensor]) -> str:
    """An identity of weights: every name, shape and type, and the first 4 kB of each tensor."""
    sha = hashlib.sha256()
    for key in sorted(weights):
        tensor = weights[key]
        sha.update(json.dumps([key, list(tensor.shape), str(tensor.dtype)]).encode())
        head = tensor.flatten()[: 4096 // max(tensor.element_size(), 1)].cpu().contiguous()
        sha.update(head.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


class HostedTextEncoder(TextEncoder):
    """The built-in text encoder as the host's CLIP calls it."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, device: Any):
        (num_words, width), (num_tokens, _) = shapes["words.weight"], shapes["places.weight"]
        super().__init__(num_words - 2, num_tokens, width)
        self.to(device=device, dtype=dtype)
        self.dtypes = {dtype}

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """The host's options for layers and projections; there are none here."""

    def reset_clip_options(self) -> None:
        """See set_clip_options."""

    def encode_token_weights(self, tokens: dict[str, list]) -> tuple[Tensor, Tensor]:
        """Tokens with weights -> context ``1 l d`` and pooled ``1 d``."""
        numbers = [[number for number, _ in row] for row in tokens["words"]]
        with torch.no_grad():
            return self(torch.tensor(numbers, device=self.words.weight.device))


class HostedTokenizer:
    """The tokenizer under the names that the host calls."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, list]:
        """Every word has weight 1."""
        return {"words": [[(number, 1.0) for number in self.tokenizer(text)]]}

    def state_dict(self) -> dict[str, Any]:
        """Nothing that a file would need."""
        return {}


class _ClipTarget:
    """What the host's CLIP is made from."""

    def __init__(self, clip: Callable[..., nn.Module], tokenizer: Callable[..., HostedTokenizer]):
        self.clip, self.tokenizer, self.params = clip, tokenizer, {}


def load_text_encoder(path: str) -> comfy.sd.CLIP:
    """CLIP from the built-in text encoder's file. Raises CheckpointError for another file."""
    metadata = builtin.read_metadata(Path(path))
    if "framepack.vocabulary" not in metadata:
        raise CheckpointError(
            f"{Path(path).name} has no vocabulary, so it is not the built-in text encoder; load others with "
            "DualCLIPLoader (type hunyuan_video)."
        )
    weights = {k: v.float() for k, v in comfy.utils.load_torch_file(path, safe_load=True).items()}
    shapes = {k: tuple(v.shape) for k, v in weights.items()}

    def clip(dtype: torch.dtype, device: Any, model_options: Any) -> HostedTextEncoder:
        return HostedTextEncoder(shapes, dtype, device)

    tokenizer = HostedTokenizer(builtin.read_tokenizer(metadata))
    target = _ClipTarget(clip, lambda **_: tokenizer)
    out = comfy.sd.CLIP(target, model_options={"dtype": torch.float32}, parameters=sum(v.numel() for v in weights.values()))
    out.load_sd(weights, full_model=True)
    return out


def latent_format(model: comfy.model_patcher.ModelPatcher) -> Any:
    """The model's latent format."""
    return model.get_model_object("latent_format")


def is_framepack(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Is a MODEL one of ours?"""
    return isinstance(model.model, FramePackModel)


def with_values(conditioning: list, values: dict[str, Any]) -> list:
    """A conditioning with values added to every entry."""
    return [[tensor, {**options, **values}] for tensor, options in conditioning]


def zeroed(conditioning: list) -> list:
    """What ConditioningZeroOut makes of a conditioning."""
    return [
        [torch.zeros_like(c), o | {"pooled_output": torch.zeros_like(o["pooled_output"])} if "pooled_output" in o else o]
        for c, o in conditioning
    ]


def sampler_named(name: str) -> Any:
    """One of the host's samplers."""
    return comfy.samplers.sampler_object(name)


def sample(
    model: comfy.model_patcher.ModelPatcher,
    noise: Tensor,
    sigmas: Tensor,
    sampler: Any,
    positive: list,
    negative: list,
    cfg: float,
    seed: int,
    callback: Callable[..., None] | None,
) -> Tensor:
    """The host's sampling from pure noise: raw latents like noise, ``b c t h w``."""
    blank = torch.zeros_like(noise)
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, blank, callback=callback, seed=seed
    )


def preview_callback(model: comfy.model_patcher.ModelPatcher, steps: int, done: int, total: int) -> Callable[..., None]:
    """A callback that shows progress over all steps of the node and previews the latents."""
    import latent_preview

    show = comfy.utils.ProgressBar(total)
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        picture = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer else None
        show.update_absolute(done + step + 1, total, picture)

    return callback
