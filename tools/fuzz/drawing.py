"""The route that draws: whatever is sent, it answers with a picture, or with a status of 400 or 409 and a message."""

from __future__ import annotations

import json
import random
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..host import Host, running
from . import mutate
from .cases import Case, check_message

SCHEDULES = ("f1k1_x_g9_f1k1f2k2f16k4_td", "td_f16k4f2k2f1k1_g9", "inverted", "f1k1_x_f16k4f2k2f1k1_g9")
LOOK = {"colour": [50.0, 1.0, 2.0], "contrast": 0.2, "sharpness": 0.1, "motion": None}
PLANNER = {"seconds": 2.4, "fps": 30.0, "width": 64, "height": 64, "start_image": True, "prompts": "0-1s: a\n1s: b"}
TRACE = "Traceback"


def request(rng: random.Random) -> dict[str, Any]:
    """A request as the page sends it."""
    schedule = {"node": "PackHistory", "inputs": {"schedule": rng.choice(SCHEDULES)}}
    point = {"node": "FramePackEndpoint", "inputs": {"seconds": 1.2, "prompt": "a", "keyframe": ""}}
    planner = PLANNER | {"schedule": schedule} | ({"endpoints": point} if rng.random() < 0.3 else {})
    run = {
        "inputs": planner,
        "takes": "2: 5",
        "seed": "7",
        "prompt": "up",
        "changed": ["steps"],
        "finished": [[0, "0" * 16]],
    }
    match rng.randrange(4):
        case 0:
            return schedule
        case 1:
            return {"node": "FramePackDriftMonitor", "inputs": {"looks": [{"own": LOOK, "start": LOOK}] * 4}}
        case 2:
            return {"node": "EndpointPlanner", "inputs": planner}
    return {"node": "EndpointPlanner", "inputs": planner, "runs": [run], "takes": "1: 3, 4", "seed": "8"}


@contextmanager
def drawing(folder: Path) -> Iterator[Case]:
    """On a host of its own. No file may appear in it."""
    with running(folder / "host", environment={"FRAMEPACK_STORE": "off"}) as host:
        yield drawing_on(host)


def drawing_on(host: Host) -> Case:
    """On a host that runs."""
    since = len(host.log_text())

    def case(rng: random.Random, given: list[Any]) -> None:
        body = json.dumps(changed(rng, request(rng)), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        if rng.random() < 0.2:
            body = mutate.some_bytes(rng, body)
        given.append(body[:300])
        status, content = ask(host, body)
        assert status in (200, 400, 409), f"status {status}: {content[:300]!r}"
        if status != 200:
            check_message(json.loads(content)["message"])
        assert host.alive, host.log_tail()
        assert TRACE not in host.log_text()[since:], host.log_tail()

    return case


def changed(rng: random.Random, data: Any) -> Any:
    """The request with one or two of its values replaced, left out, or added."""
    for _ in range(rng.randrange(3)):
        places = list(_places(data))
        parent, key = rng.choice(places)
        match rng.randrange(5):
            case 0 if isinstance(parent, dict):
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[mutate.text(rng, str(key), "abc_")] = mutate.junk(rng)
            case 2 if isinstance(parent[key], str):
                parent[key] = mutate.text(rng, parent[key], "fgkx_0123456789-:.s\n[]")
            case 3 if isinstance(parent[key], int | float):
                parent[key] = mutate.number(rng)
            case _:
                parent[key] = mutate.junk(rng)
    return data


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every place that holds a value: its parent, and its key."""
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from _places(data[key])


def ask(host: Host, body: bytes) -> tuple[int, bytes]:
    """Status and content of one request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{host.url}/framepack/draw", body), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()
