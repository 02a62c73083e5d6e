"""What the driver must know of each machine before anything is computed, and which differences forbid a run."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import FramePackError

PACK = Path(__file__).parents[1]


class FarmError(FramePackError):
    """A cluster, a worker or a store that cannot do a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Of one machine: the code and the packages, the model's identity, the device, what it read in the store.

    `fault` says why the machine cannot work at all; `model` is None where its file is missing; `outside_noise` is what
    the model gives to latents from outside.
    """

    machine: str
    pack: str = ""
    python: str = ""
    torch: str = ""
    device: str = ""
    model: str | None = None
    store: str | None = None
    fault: str | None = None
    outside_noise: tuple[float, float] | None = None


def pack_version() -> str:
    """A digest of the pack's own code."""
    sha = hashlib.sha256()
    for path in sorted(PACK.rglob("*.py")):
        sha.update(path.relative_to(PACK).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()[:12]


def python_version() -> str:
    """This process's Python, without its last number."""
    return "{}.{}".format(*sys.version_info)


def facts_here(machine: str, place: dict[str, Any], model: str, probe: str | None) -> dict[str, Any]:
    """This machine's, as plain data. `probe` is a file in the store that the driver wrote."""
    from ..job_run import Place, backbone_of_file, model_identity

    known: dict[str, Any] = {"machine": machine, "pack": pack_version(), "python": python_version()}
    try:
        known["torch"] = version("torch")
        known["device"] = Place(**place).name
        if Path(model).is_file():
            known |= {"model": model_identity(model), "outside_noise": backbone_of_file(model).outside_noise}
    except (FramePackError, PackageNotFoundError, RuntimeError, AssertionError, OSError) as fault:
        return asdict(Facts(**known, fault=str(fault)[:300]))
    read = Path(probe).read_text("utf-8") if probe and Path(probe).is_file() else None
    return asdict(Facts(**known, store=read))


def check(facts: Sequence[Facts], model: str, store: Path | None = None, token: str | None = None) -> None:
    """Raises FarmError, which names the machines, where the results would differ or a run cannot work."""
    for each in facts:
        if each.fault:
            raise FarmError(f"{each.machine} cannot run sections: {each.fault}")
    _alike(facts, "pack", "has another version of the pack", "Install the same version of framepack-nodes everywhere.")
    _alike(facts, "python", "has another Python", "Use one version of Python.")
    _alike(facts, "torch", "has another PyTorch", "Install the same version of torch everywhere.")
    if missing := [each.machine for each in facts if each.model is None]:
        raise FarmError(
            f"{', '.join(missing)} does not have the file {model}. Copy it there, or name a path that all machines "
            "share: --model PATH."
        )
    _alike(facts, "model", f"has another version of {Path(model).name}", "Copy the same file everywhere.")
    _alike(
        facts,
        "device",
        "has another device",
        "Results would differ in their last bits. Use machines of one kind, or choose them with --resource.",
    )
    if token is not None and (apart := [each.machine for each in facts if each.store != token]):
        raise FarmError(
            f"{', '.join(apart)} does not see the section store {store}. Choose a folder that all machines share, or "
            "leave out --shared; latents then travel through Ray."
        )


def _alike(facts: Sequence[Facts], name: str, fault: str, remedy: str) -> None:
    """Every machine as the first."""
    first = facts[0]
    for other in facts[1:]:
        if (one := getattr(first, name)) != (two := getattr(other, name)):
            raise FarmError(f"{other.machine} {fault} ({two}) than {first.machine} ({one}). {remedy}")
