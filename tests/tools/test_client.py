"""The client where the host, the disk or the person does what it should not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.mounts import mounted
from tests.tools.server import WORKFLOW, serving
from tools.client import main
from tools.host import REPO
from tools.job import QueueError, read_workflow
from tools.outputs import Done


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tools.client", *map(str, arguments)]


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(WORKFLOW))
    return path


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    """The command line's status and what it writes to standard error."""
    monkeypatch.setattr(sys, "argv", ["client", *map(str, arguments)])
    return main(), capsys.readouterr().err


def test_one_patience_covers_all_attempts_on_a_host_that_refuses_websockets(workflow, capsys, monkeypatch):
    began = time.monotonic()
    with serving(socket_status=500) as server:
        status, err = said(capsys, monkeypatch, server.url, workflow, "--patience", 3)
    assert status == 1
    assert "did not come back within 3 s: HTTP status 500" in err
    assert 3 <= time.monotonic() - began < 6
    assert 2 <= len(server.asked) <= 4


def test_a_host_that_stops_is_given_up_within_patience(workflow, capsys, monkeypatch):
    began, release = time.monotonic(), threading.Event()
    with serving(freezes=release) as server:
        status, err = said(capsys, monkeypatch, server.url, workflow, "--patience", 4)
        took = time.monotonic() - began
        release.set()
    assert status == 1
    assert "did not come back within 4 s" in err
    assert took < 9


def test_a_mistyped_address_fails_at_once(workflow, capsys, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", "http://no.such.host.invalid:8188", "http://"):
        began = time.monotonic()
        status, err = said(capsys, monkeypatch, address, workflow)
        assert status == 1
        assert "No ComfyUI answers at" in err
        assert time.monotonic() - began < 5


def test_ctrl_c_takes_the_run_out_of_the_queue(workflow):
    with serving(ends=False) as server:
        process = subprocess.Popen(command(server.url, workflow), cwd=REPO, stderr=subprocess.PIPE)
        while not server.queued:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    (number,) = server.queued
    assert server.asked[1:] == [f'delete ["{number}"]', f"interrupt {number}"]


def item(name: str, subfolder: str = "") -> dict[str, str]:
    return {"filename": name, "subfolder": subfolder, "type": "output"}


def test_outputs_of_one_name_and_earlier_files_are_kept_side_by_side(workflow, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"mine")
    with serving(outputs=[item("a.mp4", "one"), item("a.mp4", "two"), item("../b:c.mp4")]) as server:
        assert said(capsys, monkeypatch, server.url, workflow, "--output", folder)[0] == 0
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == {
        "a.mp4": b"mine",
        "a (2).mp4": b"videoone",
        "a (3).mp4": b"videotwo",
        ".._b_c.mp4": b"video",
    }


def test_a_full_disk_leaves_no_file(workflow, tmp_path, capsys, monkeypatch):
    with mounted(tmp_path / "small", "size=64k"), serving(outputs=[item("a.mp4")], view=bytes(1 << 20)) as server:
        status, err = said(capsys, monkeypatch, server.url, workflow, "--output", tmp_path / "small")
        assert status == 1
        assert "Cannot save a.mp4" in err
        assert "No space left" in err
        assert not list((tmp_path / "small").iterdir())


def test_a_connection_that_breaks_halfway_leaves_no_file(workflow, tmp_path, capsys, monkeypatch):
    with serving(outputs=[item("a.mp4")], view=None) as server:
        status, err = said(capsys, monkeypatch, server.url, workflow, "--output", tmp_path / "videos")
    assert status == 1
    assert server.url in err
    assert not list((tmp_path / "videos").iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps({"nodes": [], "links": [], "version": 0.4}), "the page's own format"),
        ("{", "is not JSON"),
        ("\udcff", "is not JSON"),
        ("[1]", "has no nodes"),
        ("{}", "has no nodes"),
        ('{"1": 5}', "node '1' has no class_type"),
        ('{"1": {"class_type": "A"}}', "node '1' has no class_type and inputs"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_that_is_no_workflow_is_named(tmp_path: Path, text: str, words: str):
    path = tmp_path / "workflow.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(QueueError, match=words) as fault:
        read_workflow(path)
    assert str(path) in str(fault.value)


def test_the_shipped_workflow_of_the_page_is_named(capsys, monkeypatch):
    page = REPO / "workflows" / "image_to_video_small.json"
    status, err = said(capsys, monkeypatch, "http://127.0.0.1:1", page)
    assert status == 1
    assert "workflows/api" in err


def test_a_workflow_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(QueueError, match=r"none\.json: No such file"):
        read_workflow(tmp_path / "none.json")


def test_files_of_every_kind_of_output_are_listed():
    outputs = {
        "1": {"images": [item("a.png")], "text": ["a.txt"]},
        "2": {"audio": [item("b.flac")], "animated": [True]},
    }
    assert [i["filename"] for i in Done("", outputs, (), ()).files] == ["a.png", "b.flac"]


def test_the_client_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import tools.client"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, env=os.environ, check=True)
