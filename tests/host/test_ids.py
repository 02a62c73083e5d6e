"""Node ids: ours alone, and two older ones that give way to another pack's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.host.conftest import inside, node_of
from tools.client import run
from tools.host import REPO, Host

HERE = Path(__file__).parent
SHARED = {"LoadFramePackModel": "FramePackLoadModel", "FramePackSampler": "FramePackSolver"}


@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_another_pack_with_the_same_ids_it_keeps_its_own_and_we_keep_ours(tmp_path: Path, ours_first: bool):
    ours = tmp_path / "ours"
    ours.symlink_to(REPO, target_is_directory=True)
    theirs = HERE / "otherpack"
    found = inside(HERE / "owners.py", *((ours, theirs) if ours_first else (theirs, ours)))
    for shared, own in SHARED.items():
        assert found["owners"][shared] == "custom_nodes.otherpack"
        assert found["names"][shared].startswith("Their")
        assert found["owners"][own] == "custom_nodes.ours"
    for path in (REPO / "workflows" / "api").glob("*.json"):
        kinds = {node["class_type"] for node in json.loads(path.read_text()).values()}
        assert not kinds & SHARED.keys(), path.name


def test_an_older_id_is_the_same_node_hidden_from_the_search(alive: Host, short):
    info = alive.get("/object_info")
    for shared, own in SHARED.items():
        assert info[shared].get("dev_only") or info[shared]["deprecated"]
        assert not (info[own].get("dev_only") or info[own].get("deprecated"))
        assert info[shared]["input"] == info[own]["input"]
        assert info[shared]["display_name"] == info[own]["display_name"]
    short[node_of(short, "FramePackLoadModel")]["class_type"] = "LoadFramePackModel"
    assert run(alive.url, short).files
