"""Random input raises nothing but FramePackError, and what looks for it finds what it should."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from framepack.errors import FramePackError
from tools.fuzz.areas import AREAS
from tools.fuzz.cases import Area, run
from tools.fuzz.prompts import HostFaultError, judge
from tools.job import QueueError


@pytest.mark.parametrize("name", [name for name in AREAS if name not in ("prompts", "drawing")])
def test_nothing_but_a_framepack_error_comes_out_in_bounded_time(name: str):
    area = AREAS[name]
    assert "\n".join(map(str, run(area, range(area.quick)))) == ""


def area_of(fault: Callable[[], None]) -> Area:
    def case(rng: random.Random, given: list[Any]) -> None:
        given.append(rng.random())
        if rng.random() < 0.5:
            fault()

    return Area(name="x", begin=lambda _: nullcontext(case), bound=0.05, num=1, quick=1)


def bare() -> None:
    raise KeyError("\ud800")


def spin() -> None:
    began = time.thread_time()
    while time.thread_time() - began < 0.06:
        pass


class UnprintableError(FramePackError):
    def __str__(self) -> str:
        return "Width must be 16; got \x07."


def unprintable() -> None:
    raise UnprintableError


def empty() -> None:
    raise FramePackError(" ")


@pytest.mark.parametrize("fault", [bare, spin, unprintable, empty])
def test_a_fault_is_found_once_and_can_be_seen_again(fault: Callable[[], None]):
    (found,) = run(area_of(fault), range(20))
    assert f"--only {found.number} --seed 0" in str(found)
    assert str(found).isascii()
    (again,) = run(area_of(fault), [found.number])
    assert again == found


def test_a_framepack_error_is_no_fault():
    def refuse() -> None:
        raise FramePackError("Width must be 16; got 17. Try 16.")

    assert run(area_of(refuse), range(20)) == []


def execution(node: str, kind: str, message: str = "text") -> QueueError:
    return QueueError("", {"node_type": node, "exception_type": kind, "exception_message": message})


def test_a_hosts_error_is_a_fault_where_our_node_should_have_refused():
    judge(execution("ImageScale", "KeyError"), {})
    judge(execution("SectionSampler", "custom_nodes.framepack-nodes.framepack.errors.PlanError"), {})
    judge(execution("SectionSampler", "pack.nodes.validation.InputError"), {})
    for fault in (execution("SectionSampler", "KeyError"), QueueError("HTTP status 500")):
        with pytest.raises(HostFaultError):
            judge(fault, {})
    error = {"type": "custom_validation_failed", "extra_info": {}}
    inner = {"type": "exception_during_inner_validation", "extra_info": {"traceback": ['File "framepack-nodes/x"']}}
    judge(QueueError("", {"node_errors": {"1": {"class_type": "A", "errors": [error]}}}), {})
    with pytest.raises(HostFaultError):
        judge(QueueError("", {"node_errors": {"1": {"class_type": "A", "errors": [inner]}}}), {})
