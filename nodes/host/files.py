"""The host's folders: what it lists, and the built-in model among it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import folder_paths

from ...framepack.checkpoints.files import INDEX, shard_names
from ...framepack.checkpoints.gguf_file import SUFFIX, is_first
from ...framepack.errors import CheckpointError, FramePackError
from ...framepack.shapes import builtin

log = logging.getLogger(__name__)

MODELS = "diffusion_models"  # the host's folder of DiTs
CODEBOOKS = "framepack_codebooks"  # the pack's own folder among the host's models
GGUF = "framepack_gguf"  # the same folder, of whose files the host lists no GGUF


def register_assets() -> None:
    """List GGUF files and the built-in model, and lay its examples beside the user's images, if absent."""
    folder_paths.folder_names_and_paths[GGUF] = (folder_paths.folder_names_and_paths[MODELS][0], {SUFFIX})
    folder_paths.add_model_folder_path(CODEBOOKS, str(Path(folder_paths.models_dir) / CODEBOOKS))
    folder_paths.folder_names_and_paths[CODEBOOKS][1].add(".safetensors")
    for kind in ("diffusion_models", "vae", "text_encoders", CODEBOOKS):
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
    """Full path of a listed file. Raises FramePackError where there is none."""
    path = folder_paths.get_full_path(kind, name) if isinstance(name, str) else None
    if path is None:
        raise FramePackError(f"{name!r} is not among the {kind} files. Refresh the list and choose one.")
    return path


def list_models() -> list[str]:
    """DiT checkpoints: files, and folders of shards (their name ends in /) in place of the shards in them."""
    names = list_files(MODELS)
    folders = _folders(names)
    shards = {place / name for place in folders.values() for index in _indexes(place) for name in _named(index)}
    paths = {name: folder_paths.get_full_path(MODELS, name) for name in names}
    files = [name for name, path in paths.items() if path and Path(path) not in shards]
    return [*files, *filter(is_first, list_files(GGUF)), *folders]


def find_model(name: str) -> str:
    """Full path of a listed DiT checkpoint. Raises FramePackError where there is none."""
    if not str(name).endswith("/"):
        return find_file(GGUF if str(name).endswith(SUFFIX) else MODELS, name)
    folders = _folders(list_files(MODELS))
    if name not in folders:
        raise FramePackError(f"{name!r} is not among the {MODELS} folders. Refresh the list and choose one.")
    return str(folders[name])


def _folders(names: list[str]) -> dict[str, Path]:
    """Folders of listed files that hold an index, by their names; the host's list follows links, so these do."""
    found: dict[str, Path] = {}
    for name in names:
        place, path = Path(name).parent.as_posix() + "/", folder_paths.get_full_path(MODELS, name)
        if path is not None and place not in found and _indexes(Path(path).parent):
            found[place] = Path(path).parent
    return found


def _indexes(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{INDEX}"))


def _named(index: Path) -> tuple[str, ...]:
    """The shards that an index names; none where it is broken, which is said when its folder is chosen."""
    try:
        return shard_names(index)
    except CheckpointError:
        return ()
