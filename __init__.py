"""FramePack nodes for ComfyUI: long videos, section by section, from a history packed by importance."""

from importlib.util import find_spec

WEB_DIRECTORY = "./web"

# pytest imports this file too, without the host and without a parent package.
if __package__ and find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
