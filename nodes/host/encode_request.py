"""A request of `framepack/training/elsewhere.py`: a data set, the model that it is for, and what encodes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
import torch
from utils.extra_config import load_extra_path_config

from ...framepack.checkpoints.files import Checkpoint
from ...framepack.checkpoints.model_file import ModelFile
from ...framepack.errors import FramePackError
from ...framepack.training import encoding
from ...framepack.training.config import Data
from ...framepack.training.settings import read
from .encoding import HostEncoder
from .files import register_assets
from .loading import latent_format_of
from .text import load_text_encoder

CLIP_TYPES = {"hunyuan": "HUNYUAN_VIDEO", "wan": "WAN", "helios": "WAN"}  # the host's, by backbone
OWN = "framepack.vocabulary"  # metadata of the built-in text encoder


def encode(request: Mapping[str, Any]) -> str:
    """Fill the cache of a request; what was wrong, empty where nothing was."""
    try:
        _add_folders(Path(request["comfyui"]))
        with torch.inference_mode():
            encoder = _encoder(ModelFile.open(request["model"]), request["vae"], request["text_encoders"])
            encoding.encode(read(Data, request["data"]), encoder, request["grey"], request["prompts"])
    except FramePackError as fault:
        return str(fault)
    return ""


def _add_folders(comfyui: Path) -> None:
    """The folders of models that the host's main.py adds."""
    if (named := comfyui / "extra_model_paths.yaml").is_file():
        load_extra_path_config(str(named))
    register_assets()


def _encoder(file: ModelFile, vae: str, text_encoders: list[str]) -> HostEncoder:
    """Load the files. Raises FramePackError for what is not there, or is another model's."""
    weights, metadata = comfy.utils.load_torch_file(_path("vae", vae), return_metadata=True)
    loaded = comfy.sd.VAE(sd=weights, metadata=metadata)
    paths = [_path("text_encoders", name) for name in text_encoders]
    clip = _clip(paths, CLIP_TYPES[file.backbone.key])
    return HostEncoder(loaded, clip, file.backbone, file.spec, latent_format_of(file))


def _clip(paths: list[str], kind: str) -> Any:
    if len(paths) == 1 and OWN in Checkpoint.open(paths[0]).metadata:
        return load_text_encoder(paths[0])
    embeddings = folder_paths.get_folder_paths("embeddings")
    return comfy.sd.load_clip(paths, embeddings, clip_type=comfy.sd.CLIPType[kind])


def _path(kind: str, name: str) -> str:
    """A file that the host lists, or any by its path. Raises FramePackError."""
    found = folder_paths.get_full_path(kind, name)
    if found is None and Path(name).is_file():
        return str(Path(name).resolve())
    if found is None:
        listed = ", ".join(folder_paths.get_filename_list(kind)[:8]) or "none"
        raise FramePackError(
            f"[host]: {name!r:.80} is no file of ComfyUI's models/{kind}, nor a path. There are: {listed}."
        )
    return found
