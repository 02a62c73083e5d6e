"""Machines that would give other results, or cannot work, are named before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from framepack.cli import main
from framepack.errors import FramePackError
from framepack.farm.cluster import Cluster, ray_package
from framepack.farm.facts import Facts, FarmError, check, facts_here
from framepack.job_run import Place
from framepack.shapes import builtin

ONE = Facts(machine="one", pack="p1", python="3.11", torch="2.13", device="EPYC", model="m1", store="token")
MODEL = "/models/some.safetensors"


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"pack": "p2"}, "version of the pack"),
        ({"python": "3.12"}, "Python"),
        ({"torch": "2.12"}, "PyTorch"),
        ({"model": None}, "does not have the file /models/some.safetensors"),
        ({"model": "m2"}, "version of some.safetensors"),
        ({"device": "Xeon"}, "another device"),
        ({"store": None}, "does not see the section store"),
        ({"store": "older"}, "does not see the section store"),
        ({"fault": "it has no framepack-nodes"}, "no framepack-nodes"),
    ],
)
def test_a_machine_that_differs_is_named_with_the_remedy(other: dict, named: str):
    check([ONE, replace(ONE, machine="two")], MODEL, Path("/store"), "token")
    with pytest.raises(FarmError, match=named) as caught:
        check([ONE, replace(ONE, machine="two", **other)], MODEL, Path("/store"), "token")
    assert "two" in str(caught.value)


def test_this_machine_tells_its_own(tmp_path: Path):
    probe = tmp_path / "a.probe"
    probe.write_text("token")
    place = {"device": "cpu", "dtype": "fp32", "attention": "sdpa", "threads": 1}
    told = Facts(**facts_here("here", place, str(builtin.DIT), str(probe)))
    assert told.fault is None
    assert told.model and told.device and told.torch
    assert told.store == "token"
    assert Facts(**facts_here("here", place, str(tmp_path / "gone"), None)).model is None
    assert Facts(**facts_here("here", place | {"device": "cuda:63"}, str(builtin.DIT), None)).fault


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "host:port"])
def test_an_address_that_does_not_answer_is_named_at_once(address: str):
    pytest.importorskip("ray")
    with pytest.raises(FarmError, match=address), Cluster(address=address, place=Place()).connected():
        pass


def test_a_missing_ray_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(FramePackError, match=r"pip install '\.\[farm\]'"):
        ray_package()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["farm", "plan", "gone.safetensors"], "gone.safetensors"),
        (["farm", "plan", "a.safetensors", "--workers", "0"], "--workers"),
        (["farm", "plan", "a.safetensors", "--shared"], "--store"),
        (["farm", "jobs", "gone.jsonl", "--host", "127.0.0.1:1"], "gone.jsonl"),
        (["farm", "jobs", "gone.jsonl"], "--host"),
    ],
)
def test_the_command_line_names_what_is_wrong(arguments: list[str], named: str, capsys: pytest.CaptureFixture):
    assert main(arguments) == 2
    assert named in capsys.readouterr().err
