"""The configuration file: every mistake is named with its place, and what was meant is suggested."""

from __future__ import annotations

import pytest

from framepack.errors import FramePackError
from framepack.training.config import Config, Share, Stage
from framepack.training.presets import load, names, text_of
from framepack.training.settings import ConfigError, parse, read

WHOLE = {
    "model": {"path": "m.safetensors"},
    "data": {"cache": "c"},
    "run": {"out": "o"},
    "stage": [{"steps": 10, "mixture": [{"schedule": "inverted"}]}],
}


def changed(where: str, value: object) -> dict:
    """The whole configuration with one value set, at a path such as stage.0.steps."""
    *path, name = where.split(".")

    def put(data, path):
        if not path:
            return data | {name: value}
        if isinstance(data, list):
            return [put(each, path[1:]) if i == int(path[0]) else each for i, each in enumerate(data)]
        return data | {path[0]: put(data.get(path[0], {}), path[1:])}

    return put(WHOLE, path)


def test_the_defaults_are_the_papers():
    config = read(Config, WHOLE)
    stage = config.stage[0]
    assert (stage.optimizer, stage.rate, stage.warmup, stage.decay, config.run.clip) == ("adafactor", 1e-5, 0, 0, 0.5)
    assert stage.shift == 0  # Flux's dynamic shift


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        ("run.sead", 1, ["run.sead", "'seed'"]),
        ("stage.0.mixture.0.shedule", "x", ["stage[0].mixture[0].shedule", "'schedule'"]),
        ("trainer", {}, ["trainer"]),
        ("stage.0.optimizer", "adamv", ["stage[0].optimizer", "'adamv'", "'adamw'"]),
        ("stage.0.steps", "many", ["stage[0].steps", "'many'"]),
        ("stage.0.steps", 0, ["steps", "0"]),
        ("stage.0.steps", True, ["steps", "True"]),
        ("stage", [], ["stage"]),
        ("run", 7, ["run", "7"]),
        ("history.noise", [0.5, 0.1], ["history.noise", "0.1"]),
        ("history.noise", [0.5], ["history.noise", "0.5"]),
        ("history.dropout", 1.5, ["history.dropout", "1.5"]),
        ("run.clip", float("nan"), ["run.clip", "nan"]),
        ("lora.targets", "(", ["'('"]),
        ("lora.rank_pattern", {"ff": "x"}, ["lora.rank_pattern.ff", "'x'"]),
        ("data.base", 8, ["data.base", "8"]),
        ("stage.0.mixture.0.schedule", "f1k1_x_g9_q", ["f1k1_x_g9_q"]),
        ("stage.0.mixture.0.weight", 0, ["weight"]),
    ],
)
def test_a_wrong_value_is_named_with_its_place(where: str, value: object, named: list[str]):
    with pytest.raises(FramePackError) as raised:
        read(Config, changed(where, value))
    assert all(name in str(raised.value) for name in named)


def test_a_setting_that_is_missing_is_named():
    with pytest.raises(ConfigError, match="data.cache"):
        read(Config, WHOLE | {"data": {}})


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "c.toml"
    for content in (b"[model", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="c.toml"):
            load(path)
    with pytest.raises(ConfigError, match="none.toml"):
        load(tmp_path / "none.toml")


def test_the_rate_rises_over_the_warm_up_and_falls_over_the_decay():
    stage = Stage(steps=10, mixture=(Share(),), rate=1.0, warmup=4, decay=0.5)
    assert [round(stage.rate_at(step), 2) for step in (0, 1, 3, 5, 6, 9)] == [0.25, 0.5, 1.0, 1.0, 0.8, 0.2]


OWN = """
preset = "{name}"
[model]
path = "m.safetensors"
[data]
cache = "c"
[run]
out = "o"
"""


@pytest.mark.parametrize("name", names())
def test_a_configuration_starts_from_a_preset(tmp_path, name: str):
    path = tmp_path / "c.toml"
    path.write_text(OWN.format(name=name), encoding="utf-8")
    config, stated = load(path), parse(text_of(name), name)
    assert config.run.batch == stated["run"]["batch"]
    assert len(config.stage) == len(stated["stage"])
    path.write_text(OWN.format(name=name) + "batch = 2\n[[stage]]\nsteps = 3\nmixture = [{}]\n", encoding="utf-8")
    changed = load(path)
    assert (changed.run.batch, changed.run.at_once, changed.steps) == (2, config.run.at_once, 3)


def test_the_papers_preset_is_the_papers(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(OWN.format(name="paper"), encoding="utf-8")
    config = load(path)
    stage = config.stage[0]
    assert (stage.optimizer, stage.rate, stage.train, config.run.clip) == ("adafactor", 1e-5, "full", 0.5)
    assert (config.run.batch, config.data.base) == (64, 640)


def test_an_unknown_preset_is_named_and_the_nearest_suggested(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(OWN.format(name="lora-24g"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'lora-24g'.*'lora-24gb'"):
        load(path)
