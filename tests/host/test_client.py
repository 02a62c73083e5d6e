"""The client on a real host: names of uploads, and a run that is withdrawn."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.host.conftest import SHIPPED
from tools.client import upload
from tools.host import REPO, Host


@pytest.mark.parametrize("name", ["外 ü.png", "a;b=c&%41.png", "-x'y(1).png"])
def test_an_upload_keeps_its_name(alive: Host, tmp_path: Path, name: str):
    Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    assert upload(alive.url, tmp_path / name) == name
    assert (alive.base / "input" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_another_image_of_an_uploads_name_is_kept(alive: Host, tmp_path: Path):
    names = []
    for colour in ("red", "blue", "red"):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "same.png")
        names.append(upload(alive.url, tmp_path / "same.png"))
    assert names == ["same.png", "same (1).png", "same.png"]
    assert Image.open(alive.base / "input" / "same.png").getpixel((0, 0)) == (255, 0, 0)


def test_ctrl_c_ends_the_run_on_the_host(alive: Host):
    command = [sys.executable, "-m", "tools.client", alive.url, str(SHIPPED), "--seconds", "60", "--seed", "123"]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE)
    while not alive.get("/queue")["queue_running"]:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(alive.get("/queue").values()):
        time.sleep(0.1)
    assert not any(alive.get("/queue").values())
