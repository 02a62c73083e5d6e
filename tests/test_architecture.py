"""Who may import whom, read from the syntax trees; sizes of files and functions; what the host needs to find."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
SOURCES = sorted(p for folder in ("framepack", "nodes", "tools") for p in REPO.glob(f"{folder}/**/*.py"))
NO_TORCH = {"errors", "units", "schedule", "planning", "pictures", "cli"}
BASICS = {"errors", "units", "schedule", "planning"}
# Layers, lowest first: a module imports its own layer and those that its entry names.
ALLOWED = {
    "errors": set(),
    "units": {"errors"},
    "schedule": {"errors", "units"},
    "planning": {"errors", "units", "schedule"},
    "pictures": {"errors", "units", "schedule", "planning"},
    "store": {"errors"},
    "nn": {"errors", "units"},
    "packing": {"errors", "units", "schedule", "planning", "nn"},
    "models": {"errors", "units", "nn", "packing"},
    "sampling": {"errors", "units", "planning", "packing", "models"},
    "pipeline": {"errors", "units", "schedule", "planning", "packing", "sampling", "store"},
    "checkpoints": {"errors", "units", "nn", "packing", "models"},
    "vae": {"errors", "units", "nn"},
    "training": BASICS | {"store", "nn", "packing", "models", "sampling", "pipeline", "checkpoints"},
    "metrics": {"errors", "units"},
    "methods": {"errors"},
    "shapes": BASICS
    | {"methods"}
    | {"nn", "packing", "models", "sampling", "pipeline", "checkpoints", "vae", "store", "training", "metrics"},
    "job_file": BASICS | {"packing", "models", "sampling"},
    "job_run": {"errors", "nn", "packing", "models", "sampling", "pipeline", "job_file"}
    | {"checkpoints", "store", "training"},
    "parallel": {"errors", "units", "nn", "packing", "models", "checkpoints", "store", "job_run", "training"},
    "farm": BASICS | {"packing", "sampling", "pipeline", "job_file", "job_run", "store", "vae"},
    "commands": BASICS
    | {"packing", "models", "sampling", "pipeline", "job_file", "job_run", "metrics", "training", "shapes", "store"}
    | {"farm"},
    "cli": BASICS | {"pictures", "checkpoints", "commands"},
    "__main__": {"cli"},
}


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Every import as (level, dotted name), functions' own included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found += [(node.level, node.module)] if node.module else [(node.level, alias.name) for alias in node.names]
    return found


def module_of(path: Path) -> str:
    return path.relative_to(REPO / "framepack").parts[0].removesuffix(".py")


FRAMEPACK = [p for p in SOURCES if p.is_relative_to(REPO / "framepack") and p.name != "__init__.py"]


@pytest.mark.parametrize("path", FRAMEPACK, ids=lambda p: str(p.relative_to(REPO)))
def test_framepack_imports_run_one_way(path: Path):
    depth = len(path.relative_to(REPO / "framepack").parts)
    own = module_of(path)
    for level, name in imports_of(path):
        top = name.split(".")[0]
        if level == 0:
            assert top not in {"comfy", "comfy_api", "folder_paths", "diffusers", "transformers", "nodes", "framepack"}
            assert not (own in NO_TORCH and top in {"torch", "einops", "safetensors", "numpy"}), name
        elif level == depth:
            assert top == own or top in ALLOWED[own], f"{own} may not import {top}"


@pytest.mark.parametrize("path", sorted(REPO.glob("nodes/**/*.py")), ids=lambda p: str(p.relative_to(REPO)))
def test_only_one_folder_of_the_nodes_touches_the_hosts_internals(path: Path):
    for level, name in imports_of(path):
        top = name.split(".")[0]
        assert level or top != "framepack", "the host loads the pack under another name: import relatively"
        if REPO / "nodes" / "host" not in path.parents:
            assert level or top not in {"comfy", "folder_paths", "execution", "server", "latent_preview", "nodes"}, name


HOST_FILES = sorted(p for p in REPO.glob("nodes/host/**/*.py") if p.name != "versions.py")


@pytest.mark.parametrize("path", HOST_FILES, ids=lambda p: str(p.relative_to(REPO)))
def test_only_one_module_asks_what_this_host_has(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            asks = node.func.id in ("hasattr", "find_spec") or (node.func.id == "getattr" and len(node.args) == 3)
            assert not asks, f"line {node.lineno}: move it to nodes/host/versions.py"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            assert not re.search("ImportError|ModuleNotFound|^AttributeError$", caught), f"line {node.lineno}: {caught}"


@pytest.mark.parametrize("path", FRAMEPACK, ids=lambda p: str(p.relative_to(REPO)))
def test_the_library_uses_public_pytorch_and_names_no_attribute_of_the_host(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            private = re.match(r"torch\.(_|ops\b|\w+\._)", ast.unparse(node))
            assert not (private or node.attr.startswith("comfy_")), f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPO)))
def test_files_and_functions_stay_readable(path: Path):
    text = path.read_text()
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in ("define_schema", "_inputs"):
            assert node.end_lineno - node.lineno <= 45, f"{node.name} has {node.end_lineno - node.lineno} lines"


def test_no_two_modules_of_the_library_share_a_name():
    """But for the backbones' folders, which have the same files."""
    names = Counter(p.stem for p in FRAMEPACK if p.stem[0] != "_" and p.parent.parent.name != "models")
    assert [name for name, num in names.items() if num > 1] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPO)))
def test_what_is_public_has_a_docstring(path: Path):
    tree = ast.parse(path.read_text())
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f) if n is not f}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            public = not node.name.startswith("_") and id(node) not in inner
            in_private = any(
                isinstance(c, ast.ClassDef) and c.name.startswith("_") and node in ast.walk(c) for c in ast.walk(tree)
            )
            short = {"forward", "fail"}
            if public and not in_private and node.name not in short:
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_the_pack_exports_its_entry_point_and_no_mapping():
    text = (REPO / "__init__.py").read_text()
    assert "comfy_entrypoint" in text
    assert "NODE_CLASS_MAPPINGS" not in text


def test_the_project_file_is_ready_for_the_registry():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    name = project["project"]["name"]
    assert re.fullmatch(r"[a-z0-9-]+", name)
    assert "comfyui" not in name
    assert project["project"]["license"]["file"] == "LICENSE"
    assert {"PublisherId", "DisplayName"} <= project["tool"]["comfy"].keys()
    assert project["project"]["urls"]["Repository"]


def test_the_weights_stay_small():
    size = sum(p.stat().st_size for p in (REPO / "framepack" / "shapes" / "assets").rglob("*.safetensors"))
    assert 0 < size <= 20e6
