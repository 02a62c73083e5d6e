"""Where a training's videos are and where its files go in the host's folders; the rest is loaded when used."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths

from ...framepack.errors import FramePackError
from ...framepack.store.digest import digest
from ...framepack.training.config import Config
from ...framepack.training.media import IMAGES, VIDEOS

FOLDER, CACHE = "framepack_training", "framepack_training_cache"  # in the host's output folder


def training_folder(name: str) -> Path:
    """A folder of videos: a path, or a folder of the host's input folder. Raises FramePackError without files."""
    path = Path(folder_paths.get_input_directory()) / name.strip()  # a full path stands for itself
    if not name.strip() or not path.is_dir():
        raise FramePackError(
            "folder must be a folder of videos or images, a full path or one in ComfyUI's input folder; got "
            f"{name!r:.80}. Make it, or choose another."
        )
    if not any(file.suffix.lower() in VIDEOS | IMAGES for file in path.rglob("*")):
        raise FramePackError(
            f"{path} holds no videos or images. Put them there, and beside each a .txt with its caption."
        )
    return path


def folder_state(name: str) -> str:
    """Changes with the files of a folder. Raises FramePackError as `training_folder`."""
    files = sorted(path for path in training_folder(name).rglob("*") if path.is_file())
    told = [[str(path), stat.st_size, stat.st_mtime_ns] for path in files for stat in [path.stat()]]
    return digest({"files": told})


def check_name(name: str) -> None:
    """Raises FramePackError for a name that no file can have."""
    if not re.fullmatch(r"[\w\-. ()]{1,100}", name) or not name.strip(". "):
        raise FramePackError(f"name must be letters, digits, - and _; got {name!r:.80}. Try framepack_lora.")


def run_place(name: str) -> Path:
    """Where the runs of a name lie in the output folder."""
    return Path(folder_paths.get_output_directory()) / FOLDER / name


def cache_of(folder: Path) -> Path:
    """Where the latents and text of a folder lie in the output folder."""
    return Path(folder_paths.get_output_directory()) / CACHE / digest({"folder": str(folder.resolve())})[:12]


def training_device() -> tuple[str, str]:
    """The host's device, and the format that training computes in there."""
    found = comfy.model_management.get_torch_device()
    narrow = found.type != "cpu" and comfy.model_management.should_use_bf16(found)
    return str(found), "bf16" if narrow else "fp32"


def learn(model: Any, vae: Any, clip: Any, config: Config) -> Any:
    """Train, as `learning` says; what it needs of PyTorch takes long to import."""
    return import_module(f"{__package__}.learning").learn(model, vae, clip, config)
