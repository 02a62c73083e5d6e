"""One real ComfyUI for all tests of this folder, over a base folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tools.client import Done, Workflow, edited, run
from tools.host import REPO, SHIM, Host, comfyui_folder, interpreter, running

SHIPPED = REPO / "workflows" / "api" / "image_to_video_small.json"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.host)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    base = tmp_path_factory.mktemp("host")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "standins").symlink_to(Path(__file__).parent / "standins", target_is_directory=True)
    # What runs and what does not is counted here; tests of the store have hosts of their own.
    with running(base, environment={"FRAMEPACK_STORE": "off"}) as running_host:
        yield running_host


@pytest.fixture
def alive(host: Host) -> Iterator[Host]:
    """The host, which must have survived the test."""
    yield host
    assert host.alive, host.log_tail()
    assert host.get("/system_stats")


@pytest.fixture
def shipped() -> Workflow:
    """The shipped workflow with whole sections: lengths are those of sections."""
    return edited(json.loads(SHIPPED.read_text()), {("EndpointPlanner", "exact_length"): False})


class Graph:
    """A workflow being built by hand: add returns a link to the node's first output."""

    def __init__(self, workflow: Workflow | None = None):
        self.workflow: Workflow = dict(workflow or {})

    def add(self, kind: str, **inputs: Any) -> list[Any]:
        number = str(max(map(int, self.workflow), default=0) + 1)
        self.workflow[number] = {"class_type": kind, "inputs": inputs}
        return [number, 0]

    def queue(self, host: Host) -> Done:
        return run(host.url, self.workflow)


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def short(shipped: Workflow) -> Workflow:
    """The shipped workflow, one second and few steps."""
    return edited(shipped, {("EndpointPlanner", "seconds"): 1.2, ("SectionSampler", "steps"): 2})


def inside(script: Path, *packs: Path) -> Any:
    """The result of a script that runs in a host's Python, without a server, after these packs were loaded in turn."""
    comfyui = comfyui_folder()
    first = [interpreter(comfyui), str(Path(__file__).parent / "inside.py")]
    command, environment = (
        [*first, os.pathsep.join(map(str, packs)), str(script)],
        os.environ | {"PYTHONPATH": str(SHIM)},
    )
    done = subprocess.run(command, cwd=comfyui, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index('{"result"') :])["result"]


def node_of(workflow: Workflow, kind: str) -> str:
    """The only node of a class."""
    (number,) = [n for n, node in workflow.items() if node["class_type"] == kind]
    return number


def files_of(host: Host, prefix: str, suffix: str) -> list[Path]:
    """What a saving node wrote under a prefix, and under no longer one that begins alike, in order."""
    return sorted((host.base / "output").glob(f"{prefix}_{'[0-9]' * 5}_{suffix}"))


def newest_latents(host: Host, prefix: str) -> Tensor:
    """The latents that SaveLatent wrote last under a prefix."""
    return load_file(files_of(host, prefix, ".latent")[-1])["latent_tensor"]


def pictures_of(host: Host, prefix: str) -> np.ndarray:
    """All pictures of a prefix, in order, ``n h w c``."""
    return np.stack([np.asarray(Image.open(path)) for path in files_of(host, prefix, ".png")])
