"""The host's folders: what it lists, and the built-in model among it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import folder_paths

from ...framepack.checkpoints.files import INDEX
from ...framepack.errors import FramePackError
from ...framepack.shapes import builtin

log = logging.getLogger(__name__)


def register_assets() -> None:
    """List the built-in model among the host's files, and lay its examples beside the user's images, if absent."""
    for kind in ("diffusion_models", "vae", "text_encoders"):
        folder_paths.add_model_folder_path(kind, str(builtin.ASSETS / kind))
    for example in (builtin.ASSETS / "input").iterdir():
        target = Path(folder_paths.get_input_directory()) / example.name
        if not target.exists():
            try:
                shutil.copyfile(example, target)
            except OSError as fault:
                log.warning("The example %s could not be laid into the input folder: %s", example.name, fault)


def list_files(kind: str) -> list[str]:
    """Files that the host knows of a kind."""
    return folder_paths.get_filename_list(kind)


def find_file(kind: str, name: str) -> str:
    """Full path of a listed file. Raises FramePackError where it is gone."""
    path = folder_paths.get_full_path(kind, name)
    if path is None:
        raise FramePackError(f"{name!r} is not among the {kind} files; refresh the list and choose one that is.")
    return path


def list_models() -> list[str]:
    """DiT checkpoints: files, and folders of shards (their name ends in /) in place of the shards in them."""
    folders = {}
    for root in map(Path, folder_paths.get_folder_paths("diffusion_models")):
        for index in sorted(root.glob(f"**/*{INDEX}")):
            folders.setdefault(index.parent.relative_to(root).as_posix() + "/", index.parent)
    files = [
        name
        for name in list_files("diffusion_models")
        if name.replace("\\", "/").rpartition("/")[0] + "/" not in folders
    ]
    return [*files, *folders]


def find_model(name: str) -> str:
    """Full path of a listed DiT checkpoint. Raises FramePackError where it is gone."""
    if not name.endswith("/"):
        return find_file("diffusion_models", name)
    if name in list_models():
        for root in folder_paths.get_folder_paths("diffusion_models"):
            if (Path(root) / name).is_dir():
                return str(Path(root) / name)
    raise FramePackError(f"{name!r} is not among the diffusion_models folders; refresh the list and choose one.")
