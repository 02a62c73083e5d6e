"""Encoding through ComfyUI: what is said where it cannot be; tests/host encodes through a real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from framepack.training.config import Data, Host
from framepack.training.elsewhere import encode_through, python_of
from framepack.training.media import MediaError
from framepack.training.settings import ConfigError

from .made_up import made_up_config

HOST = Host(vae="v.safetensors", text_encoders=("t.safetensors",))


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A folder that looks like ComfyUI's."""
    folder = tmp_path / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    return folder


def config_with(folder: Path, host: Host):
    data = Data(cache=folder / "cache", folder=folder)
    return replace(made_up_config(folder), data=data, host=host)


def test_a_folder_that_is_not_comfyuis_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match=r"elsewhere.*COMFYUI_PATH"):
        encode_through(config_with(tmp_path, HOST), HOST)


def test_the_python_of_comfyuis_own_environment_runs_it(comfyui):
    own = comfyui / ".venv" / "bin" / "python"
    assert python_of(HOST, comfyui) != str(own)
    own.parent.mkdir(parents=True)
    own.touch()
    assert python_of(HOST, comfyui) == str(own)
    assert python_of(replace(HOST, python="/usr/bin/python3"), comfyui) == "/usr/bin/python3"


def test_a_host_that_ends_too_early_or_does_not_start_is_said(tmp_path, comfyui):
    host = replace(HOST, path=comfyui)  # comfy has no modules in it
    with pytest.raises(MediaError, match="ended with code 1"):
        encode_through(config_with(tmp_path, host), host)
    host = replace(host, python=str(tmp_path / "no_python"))
    with pytest.raises(ConfigError, match=r"no_python.*cannot be started"):
        encode_through(config_with(tmp_path, host), host)


def test_a_host_without_text_encoders_is_refused():
    with pytest.raises(ConfigError, match=r"text_encoders"):
        Host(vae="v", text_encoders=())
