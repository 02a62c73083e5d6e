"""Pictures for the page, as files of the host's temporary folder."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
from PIL.Image import Image


def temporary_path(ending: str) -> Path:
    """A new file in the host's temporary folder."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"framepack_{uuid.uuid4().hex[:12]}{ending}"


def on_page(pictures: Sequence[Image], format: str, **options: Any) -> dict[str, str]:
    """Save a picture, or an animation of several, with Pillow's options; where a node's ui finds it."""
    folder, name = Path(folder_paths.get_temp_directory()), f"framepack_{uuid.uuid4().hex[:12]}.{format}"
    folder.mkdir(parents=True, exist_ok=True)
    first, *others = pictures
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(folder / name, **more, **options)
    return {"filename": name, "subfolder": "", "type": "temp"}
