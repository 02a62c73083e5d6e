"""The data set: videos and captions to a cache, what is left out, and what a step draws from it."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from framepack.errors import FramePackError
from framepack.planning.buckets import BUCKETS
from framepack.sampling.sigmas import dynamic_shift
from framepack.training.cache import CacheError, Index, Texts, clip_path, read_tensors, write_tensors
from framepack.training.clips import Clips
from framepack.training.config import Data, History, Share
from framepack.training.corruption import corrupted, dropped
from framepack.training.encoding import encode, without_colour
from framepack.training.loss import batch_of, generator_of
from framepack.training.media import MediaError, bucket_of, buckets, clips_of
from framepack.training.step_data import draw, plan_of
from tests.backbones import SMALL

from .made_up import MadeUpEncoder, made_up_cache, made_up_config

ENCODER = MadeUpEncoder(SMALL[0])


def video(path, num_frames: int, rate: int = 30, size: tuple[int, int] = (96, 64)):
    """A video whose frame i has the brightness 4 i."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = Fraction(1, rate)
        for i in range(num_frames):
            picture = np.full((size[1], size[0], 3), 4 * i, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


@pytest.fixture
def data(tmp_path) -> Data:
    """Two videos, an image, and files of every kind that cannot be used."""
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    video(folder / "a.mp4", 24)
    (folder / "a.txt").write_text("a red star\nred star\n")
    video(folder / "more" / "b.mp4", 9)
    Image.new("RGB", (64, 64), "red").save(folder / "c.png")
    (folder / "d.mp4").write_bytes(b"no video at all")
    (folder / "d.txt").write_text("broken")
    video(folder / "silent.mp4", 5)
    lines = [
        {"file": "more/b.mp4", "caption": "b"},
        {"file_name": "c.png", "text": "c"},
        {"file": "gone.mp4", "text": "g"},
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return Data(folder=folder, cache=tmp_path / "cache", base=64, longest=0.5)


def test_a_folder_becomes_a_cache_and_a_summary_of_what_was_left_out(data):
    index = encode(data, ENCODER, prompts=["asked for"])
    assert Index.read(data.cache) == index
    # 24 frames in clips of half a second, 13 frames each: 13 and then 9 of the 11 that are left
    assert [(c.captions, c.num_lat_frames) for c in index.clips] == [
        (("a red star", "red star"), 4),
        (("a red star", "red star"), 3),
        (("c",), 1),
        (("b",), 3),
    ]
    assert set(index.left_out) == {"d.mp4", "silent.mp4", "gone.mp4"}
    texts = Texts(data.cache, ENCODER.name)
    assert texts(["", "asked for"])["context"].shape[0] == 2
    with pytest.raises(CacheError, match="unknown words"):
        texts(["unknown words"])


def test_faults_stop_the_encoding_where_the_user_chose_so(data):
    strict = replace(data, faults="stop")
    with pytest.raises(MediaError, match="silent.mp4"):  # it has no caption
        encode(strict, ENCODER)
    (data.folder / "silent.txt").write_text("now it has")
    (data.folder / "gone.mp4").write_bytes(b"")
    with pytest.raises(MediaError, match="d.mp4"):  # it is no video
        encode(strict, ENCODER)


def test_encoding_goes_on_where_it_stopped(data, monkeypatch):
    calls = []

    class Counting(MadeUpEncoder):
        def latents(self, pixels):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return super().latents(pixels)

    with pytest.raises(KeyboardInterrupt):
        encode(data, Counting(SMALL[0]))
    encode(data, Counting(SMALL[0]))
    assert len(calls) == 3 + 2  # the file that was finished is not encoded again
    whole = encode(data, ENCODER)
    assert len(calls) == 5
    (data.folder / "a.txt").write_text("another caption")
    assert encode(data, ENCODER).clips[0].captions == ("another caption",)
    assert len(whole.clips) == 4


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(MediaError, match="nowhere"):
        encode(Data(folder=tmp_path / "nowhere", cache=tmp_path / "c"), ENCODER)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="empty"):
        encode(Data(folder=tmp_path / "empty", cache=tmp_path / "c"), ENCODER)
    (tmp_path / "empty" / "x.jsonl").write_text('{"file": 3}')
    with pytest.raises(MediaError, match="x.jsonl, line 1"):
        encode(Data(folder=tmp_path / "empty", cache=tmp_path / "c"), ENCODER)


def test_frames_are_those_that_are_shown_at_the_rate(tmp_path):
    video(tmp_path / "v.mp4", 30, rate=30)
    for fps, expected in ((30.0, range(0, 29)), (15.0, range(0, 26, 2)), (10.0, range(0, 27, 3))):
        (clip,) = clips_of(tmp_path / "v.mp4", fps, 64, 10)
        seen = ((clip.mean((0, 2, 3)) + 1) * 127.5 / 4).round().int().tolist()
        assert seen == list(expected)[: len(seen)]
        assert len(seen) % 4 == 1


def test_buckets_are_the_papers_in_units_of_32_pixels():
    assert buckets(640) == BUCKETS
    assert all(side % 32 == 0 for base in (64, 320, 1000) for size in buckets(base) for side in size)
    assert bucket_of(1080, 1920, 640) == (480, 832)
    assert bucket_of(64, 64, 64) == (64, 64)


def test_a_damaged_file_of_the_cache_is_named(tmp_path):
    path = clip_path(tmp_path, "0.safetensors")
    write_tensors(path, {"0": torch.zeros(4)})
    held = path.read_bytes()
    path.write_bytes(held[:-4] + b"\x00\x00\x80\x3f")
    with pytest.raises(CacheError, match="0.safetensors"):
        read_tensors(path)
    with pytest.raises(CacheError, match="no finished cache"):
        Index.read(tmp_path)


def test_a_draw_comes_from_seed_and_step_alone(tmp_path):
    config = made_up_config(tmp_path)
    clips, again = (Clips(config.data.cache) for _ in range(2))
    assert [draw(config, step, clips) for step in (0, 2, 1)] == [draw(config, step, again) for step in (0, 2, 1)]
    other = replace(config, run=replace(config.run, seed=1), stage=(replace(config.stage[0], steps=40),))
    config = replace(config, stage=other.stage)
    assert [draw(config, s, clips) for s in range(40)] != [draw(other, s, clips) for s in range(40)]


def test_sections_are_drawn_by_weight_from_clips_of_every_length(tmp_path):
    config = made_up_config(tmp_path)
    config = replace(config, stage=(replace(config.stage[0], steps=300),))
    clips = Clips(config.data.cache)
    drawn = [draw(config, step, clips) for step in range(300)]
    with_schedule = [d for d in drawn if d.share.schedule]
    assert len(with_schedule) == pytest.approx(200, abs=30)
    assert {d.num_lat_frames for d in with_schedule} == {3, 5, 7, 9}
    assert all(c.num_lat_frames >= d.num_lat_frames for d in drawn for c in d.clips)
    assert 0 < sum("" in d.captions for d in drawn) < 150


def test_levels_follow_the_dynamic_shift_and_are_spread_over_the_batch(tmp_path):
    config = made_up_config(tmp_path)
    clips = Clips(config.data.cache)
    drawn = replace(draw(config, 0, clips), share=Share(), shift=0.0)
    sources = [generator_of(0, 0, i) for i in range(len(drawn.clips))]
    batch = batch_of(drawn, clips, History(), sources, range(2), of=2)
    shift = dynamic_shift(6 * batch.noisy.shape[2])
    t = batch.sigma / (shift - (shift - 1) * batch.sigma)
    assert 0 <= t[0] <= 0.5 <= t[1] <= 1
    clean = batch.noisy - batch.sigma.view(-1, 1, 1, 1, 1) * batch.target
    start, stop = drawn.section.makes[0]
    assert torch.allclose(clean[0], clips.read(drawn.clips[0], 9)[:, start:stop], atol=1e-5)


def test_key_frames_are_planned_as_sections_of_their_own():
    plan = plan_of(Share(schedule="f1k1_x_g4_f1k1f2k2_td", anchors=1), 13)
    assert [s.makes for s in plan.sections][0] == ((6, 7),)


def test_each_corruption_acts_on_the_history_only_as_its_range_says():
    torch.manual_seed(0)
    clip, grey = torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)

    def seen(seed: int = 0, **how):
        return corrupted(clip, grey, History(**how), torch.Generator().manual_seed(seed))

    assert torch.equal(seen(), clip)
    assert torch.equal(seen(saturation=(0.0, 0.0)), grey)
    assert (seen(noise=(0.1, 0.1)) - clip).std() == pytest.approx(0.14, abs=0.03)
    assert seen(downsample=(0.5, 0.5)).diff(dim=3).abs().mean() < 0.7 * clip.diff(dim=3).abs().mean()
    changed = [not torch.equal(seen(i, noise=(0.1, 0.1), corrupted=0.5), clip) for i in range(40)]
    assert 8 < sum(changed) < 32


def test_saturation_of_latents_is_that_of_the_pictures(tmp_path):
    pixels = torch.rand(3, 5, 16, 16) * 2 - 1
    grey = without_colour(pixels)
    assert torch.allclose(grey[0], grey[2])
    half = grey + 0.5 * (pixels - grey)
    latents, colourless, wanted = map(ENCODER.latents, (pixels, grey, half))
    how = History(saturation=(0.5, 0.5))
    assert torch.allclose(corrupted(latents, colourless, how, torch.Generator()), wanted, atol=1e-5)


def test_dropped_groups_are_blank_and_keep_their_place(tmp_path):
    config = made_up_config(tmp_path)
    clips = Clips(config.data.cache)
    drawn = next(d for s in range(9) if (d := draw(config, s % 3, clips)).section.context)
    history = batch_of(drawn, clips, History(), [generator_of(0, 0, i) for i in (0, 1)], range(2), of=2).history
    gone = dropped(history, 1.0, torch.Generator())
    assert [g.positions for g in gone] == [g.positions for g in history]
    assert not any(g.latents.any() for g in gone)


def test_a_cache_without_grey_clips_cannot_be_saturated(tmp_path):
    clips = Clips(made_up_cache(tmp_path))
    with pytest.raises(FramePackError, match="saturation"):
        clips.read_grey(clips.index.clips[0], 1)


def test_grey_clips_are_encoded_beside_the_others(data):
    index = encode(data, ENCODER, grey=True)
    clips = Clips(data.cache)
    assert len(index.clips) == 4
    assert clips.read_grey(index.clips[2], 1).shape == clips.read(index.clips[2], 1).shape
    assert not torch.equal(clips.read_grey(index.clips[2], 1), clips.read(index.clips[2], 1))  # the red image
