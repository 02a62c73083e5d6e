"""Job files keep every part; the command line generates a video with the built-in model."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import av
import pytest
import torch
from safetensors.torch import save_file

from framepack.cli import main
from framepack.errors import CheckpointError
from framepack.job_file import JobFile
from framepack.planning.prompts import Blend
from framepack.planning.video import make_plan
from framepack.sampling.guidance import Guidance
from framepack.schedule.grammar import parse
from framepack.shapes import builtin

IMAGE = builtin.ASSETS / "input" / "framepack_red_star.png"


def job() -> JobFile:
    plan = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=19, height=64, width=64)
    words = {"context": torch.randn(1, 5, 8), "y": torch.randn(1, 8)}
    return JobFile(
        plan=plan,
        model="models/some.safetensors",
        prompts={None: words, Blend(before="a", after="b", weight=0.25): words, "c": words},
        negative=words,
        slots={"start": torch.randn(1, 16, 1, 8, 8)},
        scale=torch.ones(16),
        shift=torch.zeros(16),
        seed=2**63,
        sigmas=torch.tensor([1.0, 0.5, 0.0]),
        solver="unipc",
        guidance=Guidance(cfg=3.0, cfg_above=0.9, history=1.0),
    )


def test_a_job_reads_back_as_it_was_written(tmp_path: Path):
    written = job()
    written.save(tmp_path / "job.safetensors")
    read = JobFile.load(tmp_path / "job.safetensors")
    for field in fields(JobFile):
        one, other = getattr(written, field.name), getattr(read, field.name)
        assert str(one) == str(other), field.name
    assert read.anchors().keys() == {0, "start"}


def test_what_is_no_job_is_rejected_by_name(tmp_path: Path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    job().save(tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-100])
    for name in ("other.safetensors", "cut.safetensors", "gone.safetensors"):
        with pytest.raises(CheckpointError, match=name):
            JobFile.load(tmp_path / name)


def test_the_command_line_makes_a_video_that_begins_with_its_image(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = str(tmp_path / "star.mp4")
    prompt = ["--prompt", "a red star moves up", "--image", str(IMAGE)]
    assert (
        main(["generate", out, *prompt, "--seconds", "1.2", "--steps", "2", "--cfg", "1", "--history-guidance", "0"])
        == 0
    )
    assert "37 frames" in capsys.readouterr().out
    with av.open(out) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 37
    assert frames[0].shape == (64, 64, 3)
    red, green = frames[0][..., 0].astype(int), frames[0][..., 1].astype(int)
    assert ((red - green) > 60).mean() > 0.02  # the star
    assert main(["generate", out, *prompt]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gone.png", "text.png"])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture, name: str):
    (tmp_path / "text.png").write_text("no image")
    assert main(["generate", str(tmp_path / "a.mp4"), "--image", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err
