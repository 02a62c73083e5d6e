"""A workflow in API format: read from a file, checked, and edited by class or title. No network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

Workflow = dict[str, dict[str, Any]]

# What a person changes most often: the node, by class or title, and its input.
JOB = {
    "prompt": ("Prompt", "text"),
    "image": ("LoadImage", "image"),
    "seconds": ("EndpointPlanner", "seconds"),
    "schedule": ("PackHistory", "schedule"),
    "seed": ("SectionSampler", "seed"),
}


class QueueError(RuntimeError):
    """A run that cannot begin, was refused, or failed; `details` is what the host said."""

    def __init__(self, message: str, details: Any = None):
        super().__init__(message)
        self.details = details


def read_workflow(path: Path) -> Workflow:
    """A workflow from a file. Raises QueueError for a file that is missing, or not a workflow in API format."""
    try:
        workflow = json.loads(path.read_text("utf-8"))
    except OSError as fault:
        raise QueueError(f"Cannot read the workflow {path}: {fault.strerror or fault}.") from fault
    except (ValueError, RecursionError) as fault:
        raise QueueError(f"The workflow {path} is not JSON: {fault}.") from fault
    check_workflow(workflow, str(path))
    return workflow


def check_workflow(workflow: Any, name: str = "The workflow") -> None:
    """Raises QueueError for anything but a workflow in API format."""
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        raise QueueError(
            f"{name} is in the page's own format. In ComfyUI choose Workflow > Export (API) and name that file; the "
            "shipped workflows are in workflows/api/."
        )
    if not isinstance(workflow, dict) or not workflow:
        raise QueueError(f"{name} has no nodes; got {str(workflow)[:60]!r}. Export it with Workflow > Export (API).")
    for number, node in workflow.items():
        fits = isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        if not fits or not isinstance(node.get("class_type"), str):
            raise QueueError(f"{name}: node {number!r} has no class_type and inputs; got {str(node)[:60]!r}.")


def edited(workflow: Workflow, values: dict[tuple[str, str], object], strict: bool = False) -> Workflow:
    """A copy with inputs of nodes, by class or title and input name, set to other values; None leaves one as it is.

    `strict` raises QueueError where no node has the class or title.
    """
    copy: Workflow = json.loads(json.dumps(workflow))
    for (which, name), value in values.items():
        found = [n for n in copy.values() if which in (n["class_type"], n.get("_meta", {}).get("title"))]
        if strict and value is not None and not found:
            raise QueueError(f"The workflow has no node {which!r}, so its {name} cannot be set.")
        for node in found if value is not None else []:
            node["inputs"][name] = value
    return copy


def check_image(path: Path) -> None:
    """Raises QueueError for a file that is missing or not a picture."""
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:  # Pillow's, for a broken file
        why = "is not a picture" if path.exists() else "does not exist"
        raise QueueError(f"The image {path} {why}. Use a PNG, JPEG or WebP file.") from fault


def add_job(parser: argparse.ArgumentParser) -> None:
    """What a person changes of a workflow, as options of a command line."""
    parser.add_argument("--prompt", help="what happens")
    parser.add_argument("--image", type=Path, help="the start image")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--schedule", help="such as f1k1_x_g9_f1k1f2k2f16k4_td, or inverted, forward, endpoint")
    parser.add_argument("--seed", type=int)


def job(args: argparse.Namespace, image: str | None) -> dict[tuple[str, str], object]:
    """The options as changes of a workflow; `image` is the start image's name in the host's input folder."""
    return {JOB[name]: image if name == "image" else getattr(args, name) for name in JOB}
