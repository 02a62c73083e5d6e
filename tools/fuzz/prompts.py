"""API prompts on a real host: the shipped workflow through every node, with a fault in a node's inputs or links.

The host refuses a prompt, or its run ends: well, or with a FramePackError. It stays alive, and can be interrupted.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from framepack.errors import FramePackError

from ..follow import Run
from ..host import REPO, Host, running
from ..job import QueueError, Workflow
from . import mutate
from .cases import Case, check_message

SHIPPED = REPO / "workflows" / "api" / "image_to_video_small.json"
BOUND = 60.0  # seconds for a prompt
ENDS = 15.0  # seconds for the host to end what it is told to end
PRIMITIVES = {int: "PrimitiveInt", float: "PrimitiveFloat", str: "PrimitiveString", bool: "PrimitiveBoolean"}
# What a run may ask for without taking minutes; more is asked of the node alone that says so, not of the sampler.
SMALL = {"seconds": 2.4, "width": 128, "height": 128, "base": 128, "steps": 3, "section_length": 9, "fps": 60}
SMALL |= {"num_lat_frames": 9}
LIGHT = {"PackHistory", "EndpointPlanner", "FramePackEndpoint", "FramePackSigmas", "FramePackSolver"}
FINE = ("custom_validation_failed", "required_input_missing", "value_not_in_list", "invalid_input_type")
FINE += ("value_smaller_than_min", "value_bigger_than_max", "return_type_mismatch", "bad_linked_input")
FINE += ("prompt_outputs_failed_validation", "exception_during_inner_validation", "dependency_cycle")


class HostFaultError(Exception):
    """What the host says of a prompt that one of our nodes should have refused."""


def every_node() -> Workflow:
    """The shipped workflow, small, through the pack's public nodes."""
    workflow: Workflow = json.loads(SHIPPED.read_text("utf-8"))

    def of(kind: str) -> tuple[str, dict[str, Any]]:
        return next((number, node["inputs"]) for number, node in workflow.items() if node["class_type"] == kind)

    def add(kind: str, **inputs: Any) -> list[Any]:
        number = str(max(map(int, workflow)) + 1)
        workflow[number] = {"class_type": kind, "inputs": inputs}
        return [number, 0]

    (image, _), (number, sampler), (_, planner) = of("LoadImage"), of("SectionSampler"), of("EndpointPlanner")
    vae = of("VAELoader")[0]
    fitted = add("FramePackResolution", image=[image, 0], base=64, fit="crop")
    sampler["start_latent"] = add("FramePackVideoEncode", images=fitted, vae=[vae, 0], extend="forwards")
    sampler["sampler"] = add("FramePackSolver", solver="unipc")
    sampler["sigmas"] = add("FramePackSigmas", steps=1, width=64, height=64, num_lat_frames=9)
    sampler["model"] = add("FramePackStepCache", model=sampler["model"], threshold=0.1)
    sampler["anchors"] = add("FramePackKeyframe", name="key", latent=sampler["start_latent"])
    sampler["clip"] = [of("LoadFramePackTextEncoder")[0], 0]
    sampler |= {"steps": 1, "cfg": 1.0, "history_guidance": 0.0}
    planner["endpoints"] = add("FramePackEndpoint", seconds=1.3, prompt="", keyframe="")
    planner |= {"seconds": 2.4, "prompts": "0-1s: a\n1s: a", "blend": 0.0, "gap": "auto", "extend": "forwards"}
    add("FramePackVideo", samples=[number, 0], vae=[vae, 0], fps=30.0)
    return {n: node for n, node in workflow.items() if node["class_type"] not in ("SaveVideo", "CreateVideo")}


@contextmanager
def prompts(folder: Path) -> Iterator[Case]:
    """On a host of its own."""
    with running(folder / "host", environment={"FRAMEPACK_STORE": "off"}) as host:
        yield prompts_on(host)


def prompts_on(host: Host) -> Case:
    """On a host that runs."""
    base, info = every_node(), host.get("/object_info")
    ours = [number for number, node in base.items() if info[node["class_type"]]["category"].startswith("FramePack")]

    def case(rng: random.Random, given: list[Any]) -> None:
        workflow = copy.deepcopy(base)
        number = rng.choice(ours)
        kind = workflow[number]["class_type"]
        heavy = False
        for _ in range(rng.choice((1, 1, 2))):
            heavy |= disturb(rng, workflow, number, info[kind]["input"], given)
        target = number if heavy or rng.random() < 0.7 else rng.choice(ours)
        if heavy and kind not in LIGHT:
            return
        workflow["999"] = {"class_type": "PreviewAny", "inputs": {"source": [target, 0]}}
        asyncio.run(queued(host, workflow))

    return case


def disturb(rng: random.Random, workflow: Workflow, number: str, schema: dict[str, Any], given: list[Any]) -> bool:
    """Change an input of a node; whether it then asks for much."""
    inputs, options = workflow[number]["inputs"], schema.get("required", {}) | schema.get("optional", {})
    name = rng.choice(sorted(options))
    match rng.randrange(8):
        case 0:
            inputs.pop(name, None)
            given.append(f"{workflow[number]['class_type']} without {name}")
            return False
        case 1:
            inputs[name] = [rng.choice([*workflow, "1000", 3]), rng.choice((0, 0, 0, 1, -1, "0"))]
        case 2:
            inputs[rng.choice(("new", "", "model_name.x", "samples"))] = mutate.junk(rng)
        case 3:
            value = mutate.junk(rng) if rng.random() < 0.5 else value_for(rng, options[name], inputs.get(name))
            if type(value) in PRIMITIVES:
                workflow["998"] = {"class_type": PRIMITIVES[type(value)], "inputs": {"value": value}}
                inputs[name] = ["998", 0]
                given.append(f"linked {value!r:.80}")
                return is_much(name, value)
        case 4:
            inputs[name] = mutate.junk(rng)
        case _:
            inputs[name] = value_for(rng, options[name], inputs.get(name))
    given.append(f"{workflow[number]['class_type']}.{name} = {inputs.get(name)!r:.80}")
    return is_much(name, inputs.get(name))


def value_for(rng: random.Random, option: list[Any], now: Any) -> Any:
    """A value of an input's own type."""
    if isinstance(now, str) or option[0] == "STRING":
        return mutate.text(rng, str(now or "a"), "fgkx_0123456789-.:s\n")
    return mutate.number(rng) if option[0] in ("INT", "FLOAT") else mutate.junk(rng)


def is_much(name: str, value: Any) -> bool:
    """Would a sampler take minutes?"""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (name in SMALL and number and value > SMALL[name]) or name in ("schedule", "prompts", "endpoints", "rate")


async def queued(host: Host, workflow: Workflow) -> None:
    """Queue a prompt and follow it to its end. Raises HostFaultError for a fault that is not the prompt's."""
    run = Run(host.url, workflow, lambda _: None, 0.0)
    try:
        await asyncio.wait_for(run.run(), BOUND)
    except QueueError as fault:
        judge(fault, workflow)
    except TimeoutError:
        await ends(host)
        raise HostFaultError(f"it did not end within {BOUND:g} s") from None
    assert host.alive, host.log_tail()


async def ends(host: Host) -> None:
    """Raises HostFaultError where an interrupted run does not end."""
    for _ in range(int(ENDS / 0.2)):
        if not host.get("/queue")["queue_running"]:
            return
        await asyncio.sleep(0.2)
    raise HostFaultError(f"it did not end within {ENDS:g} s of an interrupt")


def judge(fault: QueueError, workflow: Workflow) -> None:
    """Raises HostFaultError for an error that one of our nodes should have named."""
    said = fault.details
    if not isinstance(said, dict):
        raise HostFaultError(str(fault)) from fault
    if "exception_type" in said:
        if not said["node_type"].startswith(("FramePack", "LoadFramePack", *LIGHT, "SectionSampler")):
            return  # a stock node's
        name = said["exception_type"].rpartition(".")[2]
        if name not in names_of(FramePackError):
            trace = "".join(said.get("traceback", []))[-1500:]
            raise HostFaultError(f"{said['node_type']}: {name}: {said['exception_message'][:300]}\n{trace}") from fault
        check_message(said["exception_message"])
        return
    for node in (said.get("node_errors") or {}).values():
        for error in node["errors"]:
            info = error.get("extra_info", {})
            if str(info.get("exception_type", "")).rpartition(".")[2] in names_of(FramePackError):
                check_message(info["exception_message"])  # raised by a node's validation, with its own words
                continue
            trace = str(info.get("traceback", ""))
            if str(info.get("exception_type", "")).endswith("RecursionError") and has_cycle(workflow):
                continue  # older hosts follow it until Python ends them
            if error["type"] not in FINE or "framepack" in trace:
                raise HostFaultError(f"{node['class_type']}: {json.dumps(error)[:1500]}") from fault


def has_cycle(workflow: Workflow) -> bool:
    """Does a node's input come from the node itself, over whatever others?"""
    links = {
        number: {
            value[0]
            for value in node["inputs"].values()
            if isinstance(value, list) and value and isinstance(value[0], str)
        }
        for number, node in workflow.items()
    }
    try:
        TopologicalSorter({number: targets & links.keys() for number, targets in links.items()}).prepare()
    except CycleError:
        return True
    return False


def names_of(kind: type) -> set[str]:
    """The names of an error and of all that derive from it, those of nodes among them."""
    found = {kind.__name__, "InputError", "InterruptProcessingException"}
    return found.union(*(names_of(sub) for sub in kind.__subclasses__()))
