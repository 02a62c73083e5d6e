"""Ray: connecting to a cluster or starting one here, what each machine says of itself, and crews of actors."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import MissingPackageError
from ..job_run import Place
from .facts import PACK, Facts, FarmError

ANSWER = 5.0  # seconds that an address may take to answer
PACK_NAME = "framepack"  # as machines import it
OBJECTS = 200 * 2**20  # bytes of a local cluster's object store; latents are small
PATIENCE = 60.0  # seconds that a machine may take to say what it has


def ray_package() -> Any:
    """Ray. Raises MissingPackageError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return import_module("ray")
    except ImportError as fault:
        raise MissingPackageError(
            "The farm needs the package ray, which is not installed. Install it with: pip install '.[farm]'"
        ) from fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Ray cluster by its address, or None for one that is started here with room for so many workers.

    Each worker takes `threads` CPUs, or one GPU; `resource` is one that its machine must offer, such as a GPU's kind.
    """

    address: str | None = None
    workers: int = 1
    place: Place
    ranks: int = 1
    resource: str | None = None
    more_cpus: int = 0  # of a cluster that is started here, for a decoder

    @property
    def on_gpu(self) -> bool:
        """Does each process take a GPU?"""
        return self.place.device.startswith("cuda")

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Ray, connected. Raises MissingPackageError, and FarmError for an address that does not answer."""
        ray = ray_package()
        if ray.is_initialized():
            yield ray
            return
        quiet = {"log_to_driver": False, "logging_level": "error", "namespace": "framepack"}
        if self.address:
            _answers(self.address)
            try:
                ray.init(address=self.address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as fault:
                raise _unreachable(self.address, str(fault)) from fault
        else:
            cpus = self.workers * self.ranks * (self.place.threads or 1) + self.more_cpus
            how = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECTS}
            try:
                ray.init(**how, **quiet)
            except Exception as fault:  # noqa: BLE001 - Ray raises no kind of its own
                raise FarmError(
                    f"Ray does not start on this machine: {str(fault)[:300]} Run the command again when the machine is "
                    "less busy, or give the address of a running cluster: --address."
                ) from fault
        try:
            yield ray
        finally:
            ray.shutdown()

    def facts(self, ray: Any, model: str, probe: str | None) -> list[Facts]:
        """What each machine of the cluster says of itself. Raises FarmError for one that does not answer."""
        ray.cloudpickle.register_pickle_by_value(sys.modules[_asked.__module__])
        try:
            told = {node: self._ask(ray, node, model, probe) for node in _nodes(ray, self.on_gpu)}
        finally:
            ray.cloudpickle.unregister_pickle_by_value(sys.modules[_asked.__module__])
        found = []
        for (_, name), ref in told.items():
            try:
                found.append(Facts(**ray.get(ref, timeout=PATIENCE)))
            except (ray.exceptions.RayError, TypeError) as fault:
                raise FarmError(
                    f"{name} does not answer: {str(fault)[:300]}. Look at its Ray log, or take it out of the cluster."
                ) from fault
        return found

    def _ask(self, ray: Any, node: tuple[str, str], model: str, probe: str | None) -> Any:
        strategies = import_module("ray.util.scheduling_strategies")
        pinned = strategies.NodeAffinitySchedulingStrategy(node_id=node[0], soft=False)
        needs = {"num_cpus": 0, "num_gpus": 0.01 if self.on_gpu else 0, "scheduling_strategy": pinned}
        ask = ray.remote(_asked).options(**needs, runtime_env=self.environment)
        return ask.remote(node[1], asdict(self.place), model, probe)

    @property
    def environment(self) -> dict[str, Any]:
        """Threads of a worker's products, and where it finds the pack: where the driver has it, or as installed."""
        threads = str(self.place.threads or 1)
        here = os.pathsep.join(filter(None, [str(PACK.parent), os.environ.get("PYTHONPATH", "")]))
        return {"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": here}}

    @property
    def _options(self) -> dict[str, Any]:
        """What each actor takes of its machine."""
        options: dict[str, Any] = {"runtime_env": self.environment, "max_restarts": 0}
        options |= {"num_gpus": 1, "num_cpus": 1} if self.on_gpu else {"num_cpus": self.place.threads or 1}
        return options | ({"resources": {self.resource: 0.001}} if self.resource else {})

    def decoder(self, ray: Any, video: Any, kept: tuple[int, int]) -> Any:
        """An actor that decodes and saves a video, on a device beside those of the workers."""
        from .decoding import Decoder

        on_gpu = video.device.startswith("cuda")
        options = self._options | {"num_gpus": 1 if on_gpu else 0, "num_cpus": 0 if on_gpu else 1}
        given = str(video.vae), str(video.out), video.fps, video.device, kept, self.place.threads or 1
        return ray.remote(Decoder).options(**options).remote(*given)

    def doer(self, ray: Any, store: Path) -> Any:
        """An actor that does whole job files."""
        from .worker import JobDoer

        return ray.remote(JobDoer).options(**self._options).remote(asdict(self.place), str(store))

    def crew(self, ray: Any, bundle: Any, model: str, facts: Facts, store: Path | None) -> Crew:
        """A worker: an actor for each of its processes. They may wait for a machine, which must be like the others."""
        from .worker import Worker  # torch, which the driver's checks do not need

        options = self._options | {"max_concurrency": 2}
        group = self._group(ray, options) if self.ranks > 1 else None
        if group is not None:
            strategies = import_module("ray.util.scheduling_strategies")
            options["scheduling_strategy"] = strategies.PlacementGroupSchedulingStrategy(placement_group=group)
        given = asdict(self.place), self.ranks, str(store) if store else None
        make = ray.remote(Worker).options(**options)
        actors = [make.remote(given[0], rank, *given[1:]) for rank in range(self.ranks)]
        meeting = actors[0].address.remote() if self.ranks > 1 else None
        loaded = [actor.load.remote(bundle, model, asdict(facts), meeting) for actor in actors]
        return Crew(actors=actors, loaded=loaded, group=group)

    def _group(self, ray: Any, options: dict[str, Any]) -> Any:
        """A placement group: all processes of a crew, on one machine where that is possible."""
        each = {"CPU": options["num_cpus"], **({"GPU": 1} if self.on_gpu else {}), **options.get("resources", {})}
        return import_module("ray.util").placement_group([each] * self.ranks, strategy="PACK")


@dataclass(slots=True, eq=False)
class Crew:
    """A worker's actors, and what they have been asked: to load the model, and mostly a section."""

    actors: list[Any]
    loaded: list[Any]
    group: Any = None
    section: int | None = None
    asked: list[Any] | None = None
    ready: bool = False

    def ask(self, index: int, needs: list[int], made: list[Any]) -> None:
        """Sample a section; every process of the crew takes part."""
        self.section = index
        self.asked = [actor.sample.remote(index, needs, *made) for actor in self.actors]

    @property
    def waits_for(self) -> list[Any]:
        """What it has been asked and has not answered."""
        return (self.asked or []) if self.ready else self.loaded

    def end(self, ray: Any) -> None:
        """End its processes, whatever they do."""
        for actor in self.actors:
            ray.kill(actor)
        if self.group is not None:
            import_module("ray.util").remove_placement_group(self.group)


def _asked(machine: str, place: dict[str, Any], model: str, probe: str | None) -> dict[str, Any]:
    """Runs on each machine, sent as a value: the pack may be missing there."""
    try:
        here = import_module(f"{PACK_NAME}.farm.facts").facts_here  # the machine's own
    except ImportError as fault:
        return {"machine": machine, "fault": f"it has no framepack-nodes ({fault}). Install it: pip install ."}
    return here(machine, place, model, probe)


def _nodes(ray: Any, with_gpu: bool) -> list[tuple[str, str]]:
    """Machines by Ray's id and by name; of a cluster with GPUs those that have one."""
    alive = [node for node in ray.nodes() if node["Alive"] and (not with_gpu or node["Resources"].get("GPU"))]
    return [(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})") for node in alive]


def _answers(address: str) -> None:
    """Raises FarmError where nothing listens at an address, before Ray waits for it for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdigit():
        raise FarmError(f"A cluster's address is HOST:PORT, such as 10.0.0.1:6379, or auto; got {address!r}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as fault:
        raise _unreachable(address, str(fault)) from fault


def _unreachable(address: str, fault: str) -> FarmError:
    return FarmError(
        f"No Ray cluster answers at {address} ({fault[:200]}). Start one there with: ray start --head. Without "
        "--address the farm starts its own on this machine."
    )
