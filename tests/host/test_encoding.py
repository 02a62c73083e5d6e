"""A folder of videos encoded through a real ComfyUI: what the built-in encoders give; wrong files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from framepack.shapes import builtin
from framepack.shapes.encoders import BuiltinEncoder
from framepack.shapes.lesson import write_clips
from framepack.training.cache import Index, clip_path, read_tensors, text_path
from framepack.training.config import Config, Data, History, Host, Model, Run, Samples, Share, Stage
from framepack.training.elsewhere import encode_through
from framepack.training.encoding import encode
from framepack.training.media import MediaError
from tools.host import SHIM, comfyui_folder, interpreter

MENDED = """
import importlib.util
spec = importlib.util.spec_from_file_location("shim", {shim!r})
shim = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shim)
shim.mend_torchvision()
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Config:
    """Two clips of the built-in world, to be encoded through the host."""
    (tmp_path / "mended").mkdir()
    shim = str(SHIM / "sitecustomize.py")
    (tmp_path / "mended" / "sitecustomize.py").write_text(MENDED.format(shim=shim), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mended"))
    monkeypatch.delenv("FRAMEPACK_HOST", raising=False)
    write_clips(tmp_path / "clips", 2)
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "clips" / "broken.txt").write_text("a red star", encoding="utf-8")
    comfyui, base = comfyui_folder(), tmp_path / "base"
    base.mkdir()
    host = Host(
        vae=str(builtin.VAE),
        text_encoders=(str(builtin.TEXT),),
        path=comfyui,
        python=interpreter(comfyui),
        arguments=("--cpu", "--base-directory", str(base)),
    )
    return Config(
        model=Model(path=builtin.DIT),
        data=Data(cache=tmp_path / "cache", folder=tmp_path / "clips", base=64, longest=0.6),
        run=Run(out=tmp_path / "out"),
        stage=(Stage(steps=1, mixture=(Share(),)),),
        history=History(saturation=(0.5, 1.5)),
        samples=Samples(prompts=("a blue star",)),
        host=host,
    )


def test_a_folder_encoded_through_the_host_is_what_the_built_in_encoders_give(config: Config, tmp_path: Path):
    encode_through(config, config.host)
    theirs = Index.read(config.data.cache)
    encoder = BuiltinEncoder.load()
    data = replace(config.data, cache=tmp_path / "own")
    ours = encode(data, encoder, grey=True, prompts=["a blue star"])
    assert [clip.captions for clip in theirs.clips] == [clip.captions for clip in ours.clips]
    assert theirs.left_out.keys() == ours.left_out.keys() == {"broken.mp4"}
    assert theirs.scale == pytest.approx(ours.scale)
    assert theirs.shift == pytest.approx(ours.shift)
    for one, other in zip(theirs.clips, ours.clips, strict=True):
        got, expected = (
            read_tensors(clip_path(cache, clip.file)) for cache, clip in ((config.data.cache, one), (data.cache, other))
        )
        assert got.keys() == expected.keys()
        for name, latents in expected.items():
            assert torch.allclose(got[name], latents, atol=5e-3), (name, (got[name] - latents).abs().max())
    for caption in ("", "a blue star", *ours.clips[0].captions):
        got = read_tensors(text_path(config.data.cache, theirs.encoder, caption))
        expected = read_tensors(text_path(data.cache, encoder.name, caption))
        assert all(torch.allclose(got[name], expected[name], atol=1e-4) for name in expected | got)


@pytest.mark.slow
def test_a_wrong_file_is_named_by_the_host(config: Config):
    with pytest.raises(MediaError, match=r"'nowhere\.safetensors' is no file of ComfyUI's models/vae"):
        encode_through(config, replace(config.host, vae="nowhere.safetensors"))
