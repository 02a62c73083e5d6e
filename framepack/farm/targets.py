"""What does jobs: ComfyUI hosts over HTTP, and engine actors on Ray."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import FramePackError
from ..job_file import JobFile
from .facts import FarmError
from .jobs import AwayError, Done, FailedError, RefusedError, StoppedError, Task

ANSWER = 10.0  # seconds that a host may take to answer
QUICK, SLOW = 0.02, 1.0  # seconds between two looks at a job, at first and at most
QUEUED: dict[str, Any] = {"queued": True}
SERVER_FAULT = 500  # the first HTTP status that blames the server
SECTION = "section_"  # in the names of nodes that sample sections


class Host:
    """A running ComfyUI. A job has an id that a resumed run knows too, so a job that goes on there is not run again."""

    def __init__(self, url: str, patience: float = 60.0):
        self.url, self.patience = (url if "://" in url else f"http://{url}").rstrip("/"), patience
        self.name, self.left = self.url, list[str]()

    def check(self) -> None:
        """Raises FarmError where no ComfyUI with the pack answers."""
        try:
            known = self._get("/object_info/FramePackLoadModel")
        except OSError as fault:
            raise FarmError(
                f"No ComfyUI answers at {self.url} ({fault}). Start it, or name another: --host."
            ) from fault
        except ValueError as fault:
            raise FarmError(f"What answers at {self.url} is no ComfyUI ({fault}). Name another: --host.") from fault
        if not known:
            raise FarmError(f"The ComfyUI at {self.url} has no FramePack nodes. Install the pack there.")

    def ready(self) -> bool:
        """Always: a job is only queued."""
        return True

    def answers(self) -> bool:
        """Is a host that was away there again? What it then still has to do, another did in the meantime."""
        try:
            for attempt in self.left:
                self._cancel(attempt)
            self._get("/queue")
        except (OSError, ValueError):
            return False
        self.left.clear()
        return True

    def do(self, task: Task, attempt: int, stop: Callable[[], bool]) -> Done:
        """Queue a workflow, unless this host knows the attempt already, and wait for its end."""
        id, workflow = task.attempt(attempt), workflow_of(task)
        pause = QUICK
        try:
            while (entry := self._patiently(lambda: self._found(id), stop)) is None or entry == QUEUED:
                if entry is None:  # or the host was started anew and has forgotten it
                    self._queue(workflow, id)
                if stop():
                    raise StoppedError
                time.sleep(pause)
                pause = min(pause * 1.3, SLOW)
        except StoppedError:
            with suppress(OSError, ValueError):  # a host that is gone runs nothing
                self._cancel(id)
            raise
        except AwayError:
            self.left.append(id)
            raise
        return self._done(entry)

    def _found(self, id: str) -> dict[str, Any] | None:
        """An attempt's entry in the history once it has ended, QUEUED before that; None where it is not known."""
        return self._history(id) or (QUEUED if self._queued(id) else self._history(id))  # it may end between the two

    def _done(self, entry: dict[str, Any]) -> Done:
        status = entry.get("status") or {}
        messages = {kind: data for kind, data in status.get("messages", [])}
        if status.get("status_str") != "success":
            fault = messages.get("execution_error", {})
            raise FailedError(
                f"{self.name}: {fault.get('node_type', 'the workflow')}: "
                f"{fault.get('exception_message', status.get('status_str', 'interrupted'))}"
            )
        cached = messages.get("execution_cached", {}).get("nodes", [])
        files = [
            {key: item[key] for key in ("filename", "subfolder", "type") if key in item}
            for output in entry.get("outputs", {}).values()
            for shown in output.values()
            if isinstance(shown, list)
            for item in shown
            if isinstance(item, dict) and "filename" in item
        ]
        return Done(target=self.name, outputs=files, reused=sum(SECTION in str(node) for node in cached))

    def _history(self, attempt: str) -> dict[str, Any] | None:
        entry = self._get(f"/history/{attempt}").get(attempt)
        return entry if entry and (entry.get("status") or {}).get("status_str") else None

    def _queued(self, attempt: str) -> bool:
        queue = self._get("/queue")
        return any(attempt == item[1] for kind in ("queue_running", "queue_pending") for item in queue.get(kind, []))

    def _queue(self, workflow: dict[str, Any], id: str) -> None:
        """Queue a workflow; where no answer comes, a look at the host tells whether it is queued."""
        body = {"prompt": workflow, "prompt_id": id, "client_id": "framepack-farm"}
        try:
            said = self._post("/prompt", body)
        except urllib.error.HTTPError as fault:
            if fault.code < SERVER_FAULT:
                raise RefusedError(f"{self.name} rejects the workflow: {_reason(fault)}") from fault
        except (OSError, ValueError):
            return
        else:
            if said.get("prompt_id") != id:
                raise RefusedError(
                    f"The ComfyUI at {self.url} gives jobs ids of its own. Update it to 0.3.75 or newer."
                )

    def _cancel(self, id: str) -> None:
        """Take an attempt out of the queue, running or not. Raises OSError, ValueError."""
        self._post("/queue", {"delete": [id]})
        if self._queued(id):
            self._post("/interrupt", {"prompt_id": id})

    def _patiently(self, ask: Callable[[], Any], stop: Callable[[], bool]) -> Any:
        """What a host answers, which may be gone for a while. Raises AwayError where it stays away, StoppedError."""
        end = time.monotonic() + self.patience
        while True:
            try:
                return ask()
            except (OSError, ValueError) as fault:
                if time.monotonic() > end:
                    raise AwayError(f"{self.name} does not answer: {fault}.") from fault
                if stop():
                    raise StoppedError from fault
                time.sleep(QUICK * 10)

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=ANSWER) as answer:
            return json.load(answer)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, kind)
        with urllib.request.urlopen(request, timeout=ANSWER) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else {}


def _reason(fault: urllib.error.HTTPError) -> str:
    """A host's own words for a workflow that it rejects."""
    text = fault.read(20000).decode("utf-8", "replace")
    try:
        said = json.loads(text)
        errors = [e["details"] or e["message"] for node in said.get("node_errors", {}).values() for e in node["errors"]]
        return "; ".join(errors) or said["error"]["message"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return text[:300]


def workflow_of(task: Task) -> dict[str, Any]:
    """A job's workflow with its inputs put in. Raises RefusedError."""
    given = task.line.get("workflow")
    if given is None:
        raise RefusedError(f"Line {task.number} is a job file, which ComfyUI does not run. Give --workers, not --host.")
    try:
        workflow = json.loads(Path(given).read_text(encoding="utf-8")) if isinstance(given, str) else given
        workflow = json.loads(json.dumps(workflow))
    except (OSError, ValueError) as fault:
        raise RefusedError(f"Line {task.number}: the workflow {given} cannot be read ({fault}).") from fault
    for name, value in task.line.get("inputs", {}).items():
        node, _, field = name.partition(".")
        if node not in workflow or not field:
            raise RefusedError(
                f'Line {task.number}: the input {name!r} must be "NODE.INPUT" with a node of the workflow, such as '
                f'"{next(iter(workflow), 3)}.seed".'
            )
        workflow[node]["inputs"][field] = value
    return workflow


class Engine:
    """An actor on Ray that does whole job files, one after another; it loads a model once.

    It may wait for a machine.
    """

    def __init__(self, ray: Any, make: Callable[[], Any], name: str):
        self.ray, self.make, self.name = ray, make, name
        self._begin()

    def _begin(self) -> None:
        self.actor = self.make()
        self.here = self.actor.here.remote()

    def ready(self) -> bool:
        """Has it a machine? Raises FarmError where it cannot work there."""
        if not self.ray.wait([self.here], timeout=0)[0]:
            return False
        try:
            return self.ray.get(self.here)
        except self.ray.exceptions.RayError as fault:
            raise FarmError(f"{self.name} does not start: {str(fault)[-400:]}") from fault

    def answers(self) -> bool:
        """It is never away: one that died is replaced."""
        return True

    def do(self, task: Task, attempt: int, stop: Callable[[], bool]) -> Done:
        """Sample a job file; a dead actor is replaced before the job is tried again."""
        bundle, out = job_paths(task)
        try:
            asked = self.actor.do.remote(bundle.read_bytes(), task.line.get("seed"))
        except OSError as fault:
            raise RefusedError(f"The job file {bundle} cannot be read ({fault}).") from fault
        while not self.ray.wait([asked], timeout=0.2)[0]:
            if stop():
                self.ray.kill(self.actor)
                raise StoppedError
        try:
            made, reused, latents = self.ray.get(asked)
        except self.ray.exceptions.RayTaskError as fault:
            cause = getattr(fault, "cause", None)
            kind = RefusedError if isinstance(cause, FramePackError) else FailedError
            raise kind(f"{bundle.name}: {str(cause or fault)[-400:]}") from fault
        except self.ray.exceptions.RayError as fault:
            self._begin()
            raise FailedError(f"The worker died ({type(fault).__name__}).") from fault
        JobFile.load(bundle).save_latents(latents, out)
        return Done(target=self.name, outputs=[str(out)], made=made, reused=reused)


def job_paths(task: Task) -> tuple[Path, Path]:
    """A job file, and the file of its latents. Raises RefusedError for a workflow."""
    if "job" not in task.line:
        raise RefusedError(f"Line {task.number} is a workflow, which only ComfyUI runs. Give --host URL.")
    bundle = Path(task.line["job"])
    return bundle, Path(task.line.get("out", bundle.with_suffix(".latent")))


def models_of(tasks: Sequence[Task]) -> list[str]:
    """The models of all job files. Raises RefusedError for lines that are none or write one file, CheckpointError."""
    outs, models = dict[Path, int](), dict[Path, str]()
    for task in tasks:
        bundle, out = job_paths(task)
        if (other := outs.setdefault(out.resolve(), task.number)) != task.number:
            raise RefusedError(f'Lines {other} and {task.number} both write {out}. Give each a name of its own: "out".')
        if not out.parent.is_dir():
            raise RefusedError(f"Line {task.number}: the folder {out.parent} does not exist. Make it first.")
        models[bundle] = ""
    for bundle in models:
        models[bundle] = JobFile.load(bundle).model
    return list(dict.fromkeys(models.values()))
