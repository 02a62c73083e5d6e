"""Real clusters of several machines on this one: what differs is named before anything is computed; a cluster grows.

The second machine sees file systems of its own, which root alone may give it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from framepack.job_file import JobFile
from tests.framepack.farm.test_plan import ENVIRONMENT, REPO, bundle, command, local, of_kind
from tools.host import free_port

ray = pytest.importorskip("ray")
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
QUIET = ["--disable-usage-stats", "--block"]
# A token of its own, whatever this machine's other clusters ask for.
CLUSTER = ENVIRONMENT | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}


@contextmanager
def node(*options: str, before: str = "", **environment: str) -> Iterator[subprocess.Popen]:
    """A machine of a cluster, in a process group of its own; `before` is what the shell does first."""
    line = f"{before} exec {' '.join([*RAY, 'start', *options, *QUIET])}"
    shell = ["unshare", "-m", "sh", "-c", line] if before else ["sh", "-c", line]
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(shell, env=CLUSTER | environment, **how)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(address: str, num: int) -> None:
    """Until so many machines are there; asked in a process of its own, since Ray connects once."""
    code = f"""
import ray, time
ray.init({address!r}, log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < {num}:
    time.sleep(0.2)
"""
    subprocess.run([sys.executable, "-c", code], env=CLUSTER, capture_output=True, check=True, timeout=120)


def wait_until_open(address: str) -> None:
    """Until a cluster's head answers."""
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(address)


def asked_for(address: str) -> None:
    """Until Ray says that a CPU is asked for, which a cluster that grows by itself hears."""
    for _ in range(30):
        status = subprocess.run([*RAY, "status", "--address", address], env=CLUSTER, capture_output=True, text=True)
        if "{'CPU': 1.0}: 1+ pending tasks/actors" in status.stdout:
            return
        time.sleep(1)
    raise TimeoutError(status.stdout)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The address of a cluster of two machines, and what mounts something on the second."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this user may not give a process file systems of its own")
    address, away = f"127.0.0.1:{free_port()}", {"ray": tmp_path_factory.mktemp("ray")}
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--num-cpus=1", "--include-dashboard=false"]
    with node(*head, f"--temp-dir={away['ray']}"):
        wait_until_open(address)
        wait_for(address, 1)
        with node(f"--address={address}", "--num-cpus=1", before="true;") as other:
            wait_for(address, 2)

            def mount(line: str) -> None:
                subprocess.run(["nsenter", "-t", str(other.pid), "-m", "sh", "-c", line], check=True)

            yield address, mount


def said(job: Path, address: str, *options: str | Path) -> tuple[int, str, bool]:
    """The status of a run on a cluster, what it wrote, and whether anything was computed."""
    run = command("farm", "plan", job, "--json", "--address", address, *options)
    done = subprocess.run(run, env=CLUSTER, cwd=REPO, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr, '"start"' in done.stdout


@pytest.mark.slow
def test_machines_that_differ_are_named_before_anything_is_computed(two, tmp_path: Path):
    address, mount = two
    models, store = tmp_path / "models", tmp_path / "store"
    models.mkdir()
    job = bundle(tmp_path / "job.safetensors", steps=2, gaps=2)
    model = shutil.copy(JobFile.load(job).model, models)
    other, empty, folder = tmp_path / "other", tmp_path / "empty", ["--model", model]
    empty.mkdir()
    other.write_bytes(Path(model).read_bytes()[:-1] + b"\0")
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("model name\t: Another Processor\n")
    shared = [*folder, "--store", store, "--shared"]
    wrong = (
        (models, empty, folder, f"does not have the file {model}", "--model PATH"),
        (REPO / "framepack/farm/graph.py", cpu, folder, "another version of the pack", "same version"),
        (Path("/proc/cpuinfo"), cpu, folder, "has another device", "--resource"),
        (store, empty, shared, "does not see the section store", "leave out --shared"),
    )
    store.mkdir()
    for place, over, options, named, remedy in wrong:
        mount(f"mount --bind {over} {place}")
        status, text, computed = said(job, address, *options)
        mount(f"umount {place}")
        sys.stderr.write(text)
        assert (status, computed) == (2, False)
        assert named in " ".join(text.split())
        assert remedy in text
    assert said(job, address, *shared)[0] == 0
    assert torch.equal(load_file(job.with_suffix(".latent"))["latent_tensor"], local(job))


@pytest.mark.slow
def test_a_resource_chooses_the_machines_that_are_asked(two, tmp_path: Path):
    address, _ = two
    job = bundle(tmp_path / "job.safetensors", steps=2, gaps=1)
    with node(f"--address={address}", "--num-cpus=1", "--resources='{\"good\": 1}'"):
        wait_for(address, 3)
        assert said(job, address, "--resource", "good")[0] == 0


@pytest.mark.slow
def test_a_machine_that_is_not_there_yet_is_asked_for_and_waited_for(tmp_path: Path):
    address, job = f"127.0.0.1:{free_port()}", bundle(tmp_path / "job.safetensors", steps=2, gaps=2)
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--num-cpus=0", "--include-dashboard=false"]
    with node(*head), ExitStack() as machines:
        wait_until_open(address)
        run = command("farm", "plan", job, "--json", "--address", address)
        process = subprocess.Popen(run, env=CLUSTER, cwd=REPO, stdout=subprocess.PIPE, text=True)
        events = []
        for line in process.stdout or ():
            events += [json.loads(line)] if line.startswith("{") else []
            if len(events) == 1:
                asked_for(address)
                machines.enter_context(node(f"--address={address}", "--num-cpus=1"))
        assert process.wait() == 0
    assert events[0]["event"] == "waiting"
    assert events[0]["why"] == "for a machine with 1 CPU"
    assert len(of_kind(events, "section")) == 4
