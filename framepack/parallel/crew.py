"""A crew: processes that share each section of one model, started and fed from a program that is none of them."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from threading import Thread
from typing import IO, Any

from torch import Tensor

from ..checkpoints.model_file import ModelFile
from ..errors import FramePackError
from ..nn.ranks import Ranks
from ..packing.history import ContextGroup
from ..store.digest import digest
from .messages import on_cpu, packed, receive, send

PACK = Path(__file__).parents[1]
PATIENCE = 600.0  # seconds that loading the model may take
LOOK = 0.2  # seconds between two looks at whether all processes live


class ParallelError(FramePackError):
    """Processes that cannot be started, or have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewSpec:
    """What a crew is started from. `device` is cpu or cuda, where each process takes a GPU of its own."""

    model: str
    processes: int
    device: str = "cpu"
    dtype: str = "fp32"
    attention: str = "sdpa"
    threads: int = 1

    def check(self) -> None:
        """Raises FramePackError where the heads cannot be shared out, CheckpointError for another file."""
        Ranks(world=self.processes).check_heads(ModelFile.open(self.model).spec.heads)


@dataclass(eq=False)
class Crew:
    """Running processes. Not for several threads at once."""

    spec: CrewSpec
    processes: list[subprocess.Popen] = field(default_factory=list)
    owners: list[Connection] = field(default_factory=list)
    known: list[str] = field(default_factory=list)  # sections whose unchanging inputs the processes have
    log: IO[bytes] | None = None
    meeting: int | None = None  # the port where they meet

    @classmethod
    def started(cls, spec: CrewSpec, poll: Callable[[], None] = lambda: None) -> Crew:
        """Start the processes and let them load the model. Raises FramePackError, and what `poll` does."""
        spec.check()
        crew = cls(spec)
        try:
            crew._start(poll)
            told = asdict(spec) | {"attention": "ulysses" if spec.attention == "sdpa" else f"ulysses+{spec.attention}"}
            crew._ask(told, poll, PATIENCE)
        except BaseException:
            crew.end()
            raise
        return crew

    def _start(self, poll: Callable[[], None]) -> None:
        """Start the processes, which call back; poll meanwhile."""
        key, met = secrets.token_bytes(16), dict[int, Connection]()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - end() closes it
        with Listener(("127.0.0.1", 0), authkey=key) as listener:
            port = listener.address[1]
            code = f"import sys; sys.path.insert(0, {str(PACK.parent)!r}); from framepack.parallel.rank import main"
            command = [sys.executable, "-c", f"{code}; main()", str(port)]
            for rank in range(self.spec.processes):
                mine = os.environ | self._shared(key) | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                how: dict[str, Any] = {"env": mine, "stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log}
                self.processes.append(subprocess.Popen(command, **how))
            caller = Thread(target=_met, args=(listener, met, self.spec.processes), daemon=True)
            caller.start()
            while caller.is_alive():
                poll()
                self._check()
                caller.join(LOOK)
        if len(met) < self.spec.processes:
            raise ParallelError("The processes did not call back. Another program may use their port; queue again.")
        self.owners = [met[rank] for rank in range(self.spec.processes)]

    def _shared(self, key: bytes) -> dict[str, str]:
        """What all processes find in their environment, as torchrun would state it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = free.getsockname()[1]
        if self.meeting is None:
            self.meeting = meeting
        found = {"WORLD_SIZE": str(self.spec.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.meeting)}
        return found | {"FRAMEPACK_CREW": key.hex(), "OMP_NUM_THREADS": str(self.spec.threads)}

    def velocity(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        inputs: dict[str, Any],
        positions: Sequence[int] | None,
        history: list[ContextGroup],
        levels: Sequence[float] = (),
        poll: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """A forward pass by all processes: the velocity of a section ``b c t h w``, like x.

        `inputs` are the DiT's others by name. Raises ParallelError where a process has ended, and what `poll` raises.
        """
        places = None if positions is None else list(positions)
        fixed = {"context": context.cpu(), "inputs": on_cpu(inputs), "positions": places, "history": packed(history)}
        told = {"section": digest(fixed), "x": x.cpu(), "timestep": timestep.cpu(), "levels": list(levels)}
        if told["section"] not in self.known:
            self.known = [*self.known, told["section"]][-3:]  # one fewer than a process keeps
            told["fixed"] = fixed
        return self._ask(told, poll)[0]["made"].to(x)

    def _ask(
        self, told: dict[str, Any], poll: Callable[[], None], patience: float | None = None
    ) -> list[dict[str, Any]]:
        """Tell all processes, and wait for all their answers."""
        answers: dict[int, dict[str, Any]] = {}
        end = None if patience is None else time.monotonic() + patience
        try:
            for owner in self.owners:
                send(owner, told)
            while len(answers) < len(self.owners):
                left = [owner for rank, owner in enumerate(self.owners) if rank not in answers]
                for owner in wait(left, LOOK):
                    answers[self.owners.index(owner)] = receive(owner)
                self._check()
                if fault := next((a["fault"] for a in answers.values() if "fault" in a), None):
                    time.sleep(LOOK)  # the others see a process that died as a lost connection
                    self._check()
                    self.end()
                    raise ParallelError(f"A process that shares the section failed: {fault}")
                if end is not None and time.monotonic() > end:
                    raise ParallelError(f"The processes did not load the model within {patience:g} s.")
                poll()
        except (EOFError, OSError) as fault:
            time.sleep(LOOK)  # so that it is known how the process ended
            self._check()
            self.end()
            raise ParallelError(f"The processes that share the section are gone ({fault!r}). Queue again.") from fault
        except BaseException:
            self.end()  # the others may wait in an exchange for ever
            raise
        return [answers[rank] for rank in range(len(self.owners))]

    def _check(self) -> None:
        """Raises ParallelError where a process has ended."""
        for rank, process in enumerate(self.processes):
            if process.poll() is not None:
                said = self._said()
                self.end()
                raise ParallelError(
                    f"Process {rank + 1} of {self.spec.processes} ended (status {process.returncode}). It may have run "
                    "out of memory, or was killed. Take a smaller size, fewer latent frames a section or a smaller "
                    f"dtype, and queue again: the processes are started anew. {said}".rstrip()
                )

    def _said(self) -> str:
        """The last lines that the processes wrote."""
        if self.log is None:
            return ""
        self.log.seek(0)
        return self.log.read()[-400:].decode("utf-8", "replace").strip()

    @property
    def alive(self) -> bool:
        """Do all processes live?"""
        return bool(self.processes) and all(process.poll() is None for process in self.processes)

    def end(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        for owner in self.owners:
            owner.close()
        if self.log is not None:
            self.log.close()
        self.processes, self.owners, self.log = [], [], None


def _met(listener: Listener, met: dict[int, Connection], processes: int) -> None:
    """Take the calls of so many processes; ends too where the listener is closed."""
    with suppress(OSError, EOFError):
        while len(met) < processes:
            with suppress(AuthenticationError):  # a stranger
                connection = listener.accept()
                met[receive(connection)["rank"]] = connection
