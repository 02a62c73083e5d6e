"""Samples during training: made by the engine at an interval, for every backbone, without a trace in the training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from framepack.errors import FramePackError
from framepack.shapes import encoders
from framepack.shapes.encoders import MEANS, BuiltinEncoder
from framepack.training.cache import Index
from framepack.training.command import Means
from framepack.training.config import Samples
from framepack.training.settings import ConfigError
from framepack.training.states import read_weights
from tests.backbones import SMALL

from .made_up import CAPTIONS, INVERTED, MadeUpEncoder, made_up_config, prepared

each = pytest.mark.parametrize("small", SMALL, ids=lambda small: small.name)
HOW = Samples(every=2, prompts=CAPTIONS, schedule=INVERTED, num_lat_frames=5, steps=2, cfg=2.0)


def run(config):
    trainer = prepared(config).trainer
    assert trainer.run(sample=Means(encoder=lambda path: MadeUpEncoder(SMALL[0])).sampler(trainer))
    return config.run.out


@each
def test_every_backbone_makes_samples_and_trains_as_without_them(tmp_path, small):
    config = replace(made_up_config(tmp_path, small), samples=HOW)
    without = replace(config, samples=Samples(), run=replace(config.run, out=tmp_path / "without"))
    with_samples, plain = run(config), run(without)
    assert not (plain / "samples").exists()
    made = sorted(path.name for path in (with_samples / "samples").iterdir())
    assert made == ["000000002_0.latent", "000000002_1.latent"]
    one, other = (load_file(with_samples / "samples" / name)["latent_tensor"] for name in made)
    assert one.shape == (1, 16, 5, 4, 6)
    assert one.isfinite().all()
    assert not torch.equal(one, other)  # each of its prompt
    states = [read_weights(out / "states" / "000000003") for out in (with_samples, plain)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_samples_are_unscaled_as_a_vae_takes_them(tmp_path):
    config = replace(made_up_config(tmp_path), samples=replace(HOW, prompts=()))
    normalised = run(config)
    index = Index.read(config.data.cache)
    replace(index, scale=[2.0] * 16, shift=[0.5] * 16).write(config.data.cache)
    raw = run(replace(config, run=replace(config.run, out=tmp_path / "raw")))
    (one,), (other,) = (sorted((out / "samples").iterdir()) for out in (normalised, raw))  # the first clip's caption
    got, expected = (load_file(path)["latent_tensor"] for path in (other, one))
    assert torch.allclose(got, 2 * expected + 0.5)


def test_a_sample_begins_with_the_first_frame_of_the_first_clip(tmp_path):
    config = replace(made_up_config(tmp_path), samples=replace(HOW, start=True))
    out = run(config)
    trainer = prepared(config).trainer
    made = load_file(out / "samples" / "000000002_0.latent")["latent_tensor"]
    assert torch.equal(made[0, :, :1], trainer.clips.read(trainer.clips.index.clips[0], 1))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"prompts": ("never encoded",)}, "never encoded"),
        ({"num_lat_frames": 1, "start": True}, "samples"),
        ({"start": True, "height": 64}, "48x32"),
    ],
    ids=["a prompt without text", "nothing to generate", "a start of another size"],
)
def test_samples_that_cannot_be_made_are_named_before_the_first_step(tmp_path, how, words):
    config = made_up_config(tmp_path)
    trainer = prepared(replace(config, samples=replace(HOW, **how))).trainer
    with pytest.raises(FramePackError, match=words):
        Means(encoder=lambda path: MadeUpEncoder(SMALL[0])).sampler(trainer)


def test_samples_of_the_built_in_model_are_videos(tmp_path):
    config = replace(made_up_config(tmp_path), samples=replace(HOW, prompts=CAPTIONS[:1]))
    trainer = prepared(config).trainer
    assert encoders.videos_of(trainer) is None
    trainer.clips.index = replace(trainer.clips.index, encoder=BuiltinEncoder.load().name)
    show = encoders.videos_of(trainer)
    assert show is not None
    show(torch.randn(16, 2, 4, 6), tmp_path / "samples" / "1")
    assert (tmp_path / "samples" / "1.mp4").stat().st_size > 1000


def test_a_folder_for_another_model_is_not_encoded_as_the_built_in_one(tmp_path):
    config = made_up_config(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.safetensors is another"):
        MEANS.encoder(config.model.path)
