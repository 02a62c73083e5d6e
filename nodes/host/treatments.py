"""Codebooks among the host's files, and whether a treatment of history fits a MODEL."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import comfy.model_patcher
import folder_paths

from ...framepack.errors import CodebookError, FramePackError
from ...framepack.models.packed import check_causal
from ...framepack.packing.codebook import Codebook
from ...framepack.packing.treatment import Treatment
from .files import CODEBOOKS, find_file, list_files
from .runs import say
from .sampling import latent_format

log = logging.getLogger(__name__)
FORMATS = {"StatedLatentFormat": "built-in", "HunyuanVideo": "hunyuan", "Wan21": "wan21"}  # by the host's class
TRAINED_WITH = "framepack.codebook"  # of a checkpoint's metadata: digests of the codebooks of its training, JSON


def list_codebooks() -> list[str]:
    """The names of all codebooks."""
    return list_files(CODEBOOKS)


def codebook_path(name: str) -> Path:
    """Where a listed codebook is. Raises FramePackError where there is none."""
    return Path(find_file(CODEBOOKS, name))


def new_codebook(name: str) -> Path:
    """Where a new codebook of a name goes. Raises CodebookError for a name that is no file's, or is taken."""
    if not name or Path(name).name != name or name.startswith(".") or not name.isprintable() or len(name) > 100:
        raise CodebookError(f"A codebook's name is a plain file name; got {name!r:.60}. Try my_videos_128.")
    folder = Path(folder_paths.get_folder_paths(CODEBOOKS)[0])
    path = folder / f"{name.removesuffix('.safetensors')}.safetensors"
    if path.exists():
        raise CodebookError(f"The codebook {path.name} exists already. Choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    return path


def check_treatment(model: comfy.model_patcher.ModelPatcher, treatment: Treatment, discrete: bool = False) -> None:
    """Raises FramePackError for a treatment that does not fit a MODEL; warns where weights do not know it."""
    if treatment.causal:
        check_causal(model.model.diffusion_model)
    if treatment.codebook is None:
        if discrete:
            raise FramePackError(
                "The schedule asks for discrete history (+d), and history has no codebook. Connect FramePack "
                "Discretize, or remove +d."
            )
        return
    check_codebook(model, treatment.codebook)
    if treatment.strength and (warning := untrained(model, treatment.codebook)):
        log.warning("%s", warning)
        say(warning)


def check_codebook(model: comfy.model_patcher.ModelPatcher, codebook: Codebook) -> None:
    """Raises CodebookError for a codebook of other latents than a MODEL's."""
    codebook.check(latent_format(model).latent_channels, format_name(model))


def format_name(model: comfy.model_patcher.ModelPatcher) -> str:
    """The name of a MODEL's latent format, as codebooks state it."""
    kind = type(latent_format(model)).__name__
    return FORMATS.get(kind, kind.lower())


def untrained(model: comfy.model_patcher.ModelPatcher, codebook: Codebook) -> str | None:
    """A warning where a MODEL's weights were not trained with a codebook."""
    stated = model.model.model_config.stated.get(TRAINED_WITH, "[]")
    if codebook.digest in json.loads(stated):
        return None
    return (
        "The model was not trained with this codebook, so a full strength may make the video drift or lose detail. Use "
        "a strength of 0.1 to 0.5, or a model trained with it."
    )
