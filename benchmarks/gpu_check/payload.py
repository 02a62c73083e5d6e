"""What the GPU machine lacks: wheels for its Python, and a ComfyUI without its page, in transfers of bounded size.

It has Python 3.12, torch with CUDA, torchvision, transformers, tokenizers, einops, safetensors, Pillow, numpy, scipy,
psutil and aiohttp, and no network. `.payload/1`, `.payload/2`, ... each fit one transfer beside the working tree; the
machine keeps the first while the second comes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tools.host import REPO, comfyui_folder

FOLDER = REPO / ".payload"
SITE, HOST = FOLDER / "site", FOLDER / "comfyui"
TRANSFER = 60 * 2**20  # bytes, the working tree among them
WHEELS = (
    *("av", "torchsde", "trampoline", "alembic", "Mako", "SQLAlchemy", "greenlet", "pydantic", "pydantic-core"),
    *("annotated-types", "typing-inspection", "typing-extensions", "pydantic-settings", "python-dotenv"),
    *("sentencepiece", "spandrel", "kornia", "kornia-rs", "sageattention==1.0.6"),
)
WITHOUT_KERNELS = "comfy-kitchen"  # its wheel with CUDA kernels has 56 MiB; PyTorch and Triton stand in
OF_NEWER = (WITHOUT_KERNELS, "comfy-aimdo", "simpleeval", "blake3")  # hosts whose requirements name them
MACHINE = ("--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp")
PURE = (
    "--only-binary=:all:",
    "--python-version",
    "3.12",
    "--implementation",
    "py",
    "--abi",
    "none",
    "--platform",
    "any",
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LEFT_OUT = {".git", ".venv", "venv", "tests", "tests-unit", "models", "input", "output", "web", "__pycache__", "user"}
LEFT_OUT |= {"blueprints", "custom_nodes", "temp"}


class PayloadError(RuntimeError):
    """Something cannot be fetched, or does not fit a transfer."""


def prepare(host: Path | None) -> str:
    """Fetch and pack all of it; says what goes in which transfer. Raises PayloadError."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    comfyui = host or comfyui_folder()
    wheels = FOLDER / "wheels"
    wheels.mkdir(parents=True)
    _download(_wanted(comfyui), wheels)
    pack_host(comfyui, FOLDER / "comfyui.zip")
    pieces = sorted([*wheels.glob("*.whl"), FOLDER / "comfyui.zip"])
    groups = split({piece: piece.stat().st_size for piece in pieces}, TRANSFER - tree_size())
    lines = []
    for number, group in enumerate(groups, 1):
        (FOLDER / str(number)).mkdir()
        for piece in group:
            shutil.move(piece, FOLDER / str(number) / piece.name)
        size = sum(path.stat().st_size for path in (FOLDER / str(number)).iterdir())
        lines.append(f".payload/{number}: {len(group)} files, {size / 2**20:.1f} MiB\n")
    wheels.rmdir()
    return "".join(lines) + f"The working tree: {tree_size() / 2**20:.1f} MiB\n"


def _wanted(comfyui: Path) -> list[str]:
    """The wheels by name, a newer host's in the versions that it names."""
    lines = (
        (comfyui / "requirements.txt").read_text("utf-8").splitlines()
        if (comfyui / "requirements.txt").is_file()
        else []
    )
    named = [line.split("#")[0].strip() for line in lines]
    return [*WHEELS, *(line for line in named if line.startswith(OF_NEWER))]


def _download(names: list[str], folder: Path) -> None:
    there = [*MACHINE, *(word for name in PLATFORMS for word in ("--platform", name))]
    for name in names:
        machine = PURE if name.startswith(WITHOUT_KERNELS) else there
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        done = subprocess.run([*command, *machine, name], capture_output=True, text=True)
        if done.returncode:
            raise PayloadError(f"pip cannot get {name} for the machine:\n{done.stderr.strip()[-500:]}")


def pack_host(comfyui: Path, file: Path) -> None:
    """A ComfyUI's own files, without its page, tests, models and environment."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(comfyui.rglob("*")):
            inside = path.relative_to(comfyui)
            if path.is_file() and not LEFT_OUT & set(inside.parts[:1]) and "__pycache__" not in inside.parts:
                out.write(path, inside)


def split(sizes: dict[Path, int], most: int) -> list[list[Path]]:
    """Files in as few transfers as they fit, largest first. Raises PayloadError for one that fits none."""
    groups: list[list[Path]] = []
    for path in sorted(sizes, key=lambda p: -sizes[p]):
        if sizes[path] > most:
            raise PayloadError(f"{path.name} has {sizes[path] / 2**20:.1f} MiB; a transfer takes {most / 2**20:.1f}.")
        fits = next((g for g in groups if sum(sizes[p] for p in g) + sizes[path] <= most), None)
        if fits is None:
            groups.append(fits := [])
        fits.append(path)
    return groups


def tree_size() -> int:
    """Bytes of the files that git tracks, or would."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPO, capture_output=True, check=True).stdout.decode().split("\0")
    return sum((REPO / name).stat().st_size for name in names if name and (REPO / name).is_file())


def unpacked() -> dict[str, str]:
    """Unpack what has come, once; the environment that uses it. Empty where there is no payload."""
    pieces = sorted(FOLDER.glob("[0-9]*/*"))
    if not pieces:
        return {}
    for piece in pieces:
        target = HOST if piece.name == "comfyui.zip" else SITE
        mark = FOLDER / f"{piece.name}.unpacked"
        if not mark.exists():
            with zipfile.ZipFile(piece) as file:
                file.extractall(target)
            mark.touch()
    paths = filter(None, (str(SITE), os.environ.get("PYTHONPATH")))
    return {"PYTHONPATH": os.pathsep.join(paths)} | ({"COMFYUI_PATH": str(HOST)} if HOST.is_dir() else {})
