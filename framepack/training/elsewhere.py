"""A folder encoded through ComfyUI in a process of its own: its Python, its VAE and text encoders, this pack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from .config import Config, Host
from .media import MediaError
from .settings import ConfigError

PROGRAM = Path(__file__).resolve().parents[2] / "nodes" / "host" / "encode_folder.py"
PYTHONS = [
    Path(environment, *python)
    for environment in (".venv", "venv")
    for python in (("bin", "python"), ("Scripts", "python.exe"))
]


def comfyui_of(host: Host) -> Path:
    """ComfyUI's folder. Raises ConfigError where it is none."""
    named = host.path or Path(os.environ.get("COMFYUI_PATH", ""))
    if not (named / "comfy").is_dir() or not (named / "main.py").is_file():
        raise ConfigError(
            f"host.path must be ComfyUI's folder, the one with main.py; got {str(named)!r}. Set it, or the environment "
            "variable COMFYUI_PATH."
        )
    return named.resolve()


def python_of(host: Host, comfyui: Path) -> str:
    """The Python that runs ComfyUI."""
    portable = comfyui.parent / "python_embeded" / "python.exe"
    own = (path for path in (*(comfyui / each for each in PYTHONS), portable) if path.is_file())
    return host.python or str(next(own, sys.executable))


def encode_through(config: Config, host: Host) -> None:
    """Encode a configuration's folder into its cache; what is there already is kept.

    Raises FramePackError for what cannot be used, and where ComfyUI ends before it is done.
    """
    if not PROGRAM.is_file():
        raise ConfigError(f"Encoding through ComfyUI needs the whole pack; {PROGRAM} is not there.")
    comfyui = comfyui_of(host)
    data = {name: value for name, value in asdict(config.data).items() if value is not None}
    for name in ("cache", "folder"):
        data[name] = str(data[name].resolve())
    request = {
        "comfyui": str(comfyui),
        "arguments": list(host.arguments),
        "model": str(config.model.path.resolve()),
        "vae": _told(host.vae),
        "text_encoders": list(map(_told, host.text_encoders)),
        "data": data,
        "grey": config.history.saturates,
        "prompts": list(config.samples.prompts),
    }
    command = [python_of(host, comfyui), str(PROGRAM)]
    try:
        done = subprocess.run(command, cwd=comfyui, input=json.dumps(request), stdout=subprocess.PIPE, text=True)
    except OSError as fault:
        raise ConfigError(f"host.python {command[0]!r} cannot be started: {fault.strerror}.") from fault
    fault = _answer(done.stdout)
    if done.returncode or fault is None:
        raise MediaError(
            f"ComfyUI ended with code {done.returncode} before the folder was encoded; it said why above. What is "
            "encoded is kept: start the run again to go on."
        )
    if fault:
        raise MediaError(fault)


def _told(name: str) -> str:
    """A file by its full path where it is one of this folder's; else as ComfyUI lists it."""
    return str(Path(name).resolve()) if Path(name).is_file() else name


def _answer(output: str) -> str | None:
    """What was wrong, by the last line; None where there is no answer."""
    lines = output.strip().splitlines()
    try:
        return str(json.loads(lines[-1])["framepack"])
    except (IndexError, ValueError, TypeError, KeyError):
        return None
