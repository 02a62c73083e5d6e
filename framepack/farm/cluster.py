"""Ray: connecting to a cluster or starting one here, what each machine says of itself, and crews of actors."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import MissingPackageError
from ..job_run import Place
from .facts import PACK, Facts, FarmError

NAMED = ("auto", "local")  # addresses that Ray itself finds
ANSWER = 5.0  # seconds that an address may take to answer
PACK_NAME = "framepack"  # as machines import it
OBJECTS = 200 * 2**20  # bytes of a local cluster's object store; latents are small
NO_RAY = "The farm needs the package ray, which is not installed. Install it with: pip install '.[farm]'"
PATIENCE = 60.0  # seconds that a machine may take to say what it has


def ray_package() -> Any:
    """Ray. Raises MissingPackageError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return import_module("ray")
    except ImportError as fault:
        raise MissingPackageError(NO_RAY) from fault


def check_ray() -> None:
    """Raises MissingPackageError where Ray is not installed; imports nothing."""
    if find_spec("ray") is None:
        raise MissingPackageError(NO_RAY)


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
    decode_on: str | None = None  # the device of a decoder, if there is one

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
            cpus = self.workers * self.ranks * (self.place.threads or 1) + (self.decode_on is not None)
            os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own is 15, behind all else on the machine
            how = {"address": "local", "num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECTS}
            try:
                ray.init(**how, **quiet)
            except Exception as fault:  # noqa: BLE001 - Ray raises no kind of its own
                raise FarmError(
                    f"Ray does not start on this machine: {str(fault)[:300]} Run the command again when the machine is "
                    "less busy, or give the address of a running cluster: --address."
                ) from fault
        try:
            if not self.address:
                self._check_here(ray)
            yield ray
        finally:
            ray.shutdown()

    def _check_here(self, ray: Any) -> None:
        """Raises FarmError where this machine alone, which no other joins, can never run a worker."""
        gpus, decodes = int(ray.cluster_resources().get("GPU", 0)), (self.decode_on or "").startswith("cuda")
        if gpus < (needed := self.ranks * self.on_gpu + decodes):
            raise FarmError(
                f"A run takes {needed} or more GPUs, one for each process of a worker"
                f"{' and one for decoding' if decodes else ''}; this machine has {gpus}. Choose the device cpu, fewer "
                "processes for a section, or the address of a cluster."
            )
        if not _nodes(ray, self):
            raise FarmError(
                f"This machine does not offer {self.wanted}. Leave out --resource, or give the address of a cluster."
            )

    @property
    def wanted(self) -> str:
        """What a worker's process takes of its machine, for people."""
        threads = self.place.threads or 1
        needs = "a GPU" if self.on_gpu else f"{threads} CPU{'s' * (threads > 1)}"
        return needs + (f" and the resource {self.resource}" if self.resource else "")

    @property
    def waiting(self) -> tuple[str, str]:
        """What waits, and why, where no machine fits yet."""
        return f"{self.workers} workers wait", f"for a machine with {self.wanted}"

    def fits(self, resources: dict[str, float]) -> bool:
        """Can a machine that offers these ever run a worker's process?"""
        enough = resources.get("GPU", 0) >= 1 if self.on_gpu else resources.get("CPU", 0) >= (self.place.threads or 1)
        return enough and (self.resource is None or resources.get(self.resource, 0) > 0)

    def wish(self, ray: Any) -> Any:
        """A task that needs what a worker needs: a cluster that grows by itself starts a machine for it."""
        options = {name: value for name, value in self._options.items() if name not in ("runtime_env", "max_restarts")}
        return ray.remote(lambda: None).options(**options).remote()

    def facts(self, ray: Any, model: str, probe: str | None) -> list[Facts]:
        """What each machine that fits says of itself. Raises FarmError for one that does not answer."""
        ray.cloudpickle.register_pickle_by_value(sys.modules[_asked.__module__])
        try:
            told = {node: self._ask(ray, node, model, probe) for node in _nodes(ray, self)}
        finally:
            ray.cloudpickle.unregister_pickle_by_value(sys.modules[_asked.__module__])
        found = []
        for (_, name), ref in told.items():
            try:
                found.append(Facts(**ray.get(ref, timeout=PATIENCE)))
            except (ray.exceptions.RayError, TypeError) as fault:
                raise FarmError(
                    f"{name} does not answer: {str(fault)[:300]}. It may be busy with another run; else look at its "
                    "Ray log, or take it out of the cluster."
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
        told = {"vae": str(video.vae), "fps": video.fps, "device": video.device}
        return ray.remote(Decoder).options(**options).remote(told, kept, self.place.threads or 1)

    def doer(self, ray: Any, store: Path) -> Any:
        """An actor that does whole job files."""
        from .worker import JobDoer

        return ray.remote(JobDoer).options(**self._options).remote(asdict(self.place), str(store))

    def crew(self, ray: Any, number: int, bundle: Any, load: Loading) -> Crew:
        """A worker: an actor for each of its processes. They may wait for a machine, which must be like the others."""
        from .worker import Worker  # torch, which the driver's checks do not need

        options = self._options | {"max_concurrency": 2}
        group = self._group(ray, options) if self.ranks > 1 else None
        if group is not None:
            strategies = import_module("ray.util.scheduling_strategies")
            options["scheduling_strategy"] = strategies.PlacementGroupSchedulingStrategy(placement_group=group)
        make, place = ray.remote(Worker).options(**options), asdict(self.place)
        actors = [make.remote(place, rank, self.ranks, load.store) for rank in range(self.ranks)]
        meeting = actors[0].address.remote() if self.ranks > 1 else None
        told = load.model, asdict(load.facts), load.probe
        loaded = [actor.load.remote(bundle, *told, meeting) for actor in actors]
        return Crew(number=number, actors=actors, loaded=loaded, group=group)

    def _group(self, ray: Any, options: dict[str, Any]) -> Any:
        """A placement group: all processes of a crew, on one machine where that is possible."""
        each = {"CPU": options["num_cpus"], **({"GPU": 1} if self.on_gpu else {}), **options.get("resources", {})}
        return import_module("ray.util").placement_group([each] * self.ranks, strategy="PACK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """What a worker is told when it begins: the model's file, how its machine must be, a shared store, what is there.

    `probe` is a file in the store that the driver wrote, as `facts` say.
    """

    model: str
    facts: Facts
    store: str | None = None
    probe: str | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Crew:
    """A worker's actors, and what they have been asked: to load the model, a section, and mostly how far it is."""

    number: int
    actors: list[Any]
    loaded: list[Any]
    group: Any = None
    section: int | None = None
    asked: list[Any] | None = None
    told: Any = None
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


def _nodes(ray: Any, cluster: Cluster) -> list[tuple[str, str]]:
    """Machines on which workers may run, by Ray's id and by name."""
    alive = [node for node in ray.nodes() if node["Alive"] and cluster.fits(node["Resources"])]
    return [(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})") for node in alive]


def check_address(address: str) -> None:
    """Raises FarmError for what is no address; empty is one, for a cluster that is started here."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address not in ("", *NAMED) and not (host and port.isdigit()):
        raise FarmError(f"A cluster's address is HOST:PORT, such as 10.0.0.1:6379, or auto; got {address!r}.")


def _answers(address: str) -> None:
    """Raises FarmError where nothing listens at an address, before Ray waits for it for minutes."""
    check_address(address)
    if address in NAMED:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as fault:
        raise _unreachable(address, str(fault)) from fault


def _unreachable(address: str, fault: str) -> FarmError:
    if "ersion mismatch" in fault:
        said = " ".join(fault.split())[:400]
        return FarmError(f"The cluster at {address} runs other versions: {said} Install the same Ray and Python here.")
    return FarmError(
        f"No Ray cluster answers at {address} ({fault[:200]}). Start one there with: ray start --head. One that asks "
        "for a token needs RAY_AUTH_TOKEN here too. Without --address the farm starts its own on this machine."
    )
