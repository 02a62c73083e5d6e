"""What does jobs: ComfyUI hosts over HTTP, and engine actors on Ray."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import FramePackError
from .facts import FarmError
from .jobs import Done, FailedError, RefusedError, StoppedError, Task

ANSWER = 10.0  # seconds that a host may take to answer
QUICK, SLOW = 0.02, 1.0  # seconds between two looks at a job, at first and at most
SECTION = "section_"  # in the names of nodes that sample sections


class Host:
    """A running ComfyUI. A job has an id that a resumed run knows too, so a job that goes on there is not run again."""

    def __init__(self, url: str, patience: float = 60.0):
        self.url, self.patience = (url if "://" in url else f"http://{url}").rstrip("/"), patience
        self.name = self.url

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

    def do(self, task: Task, tries: int, stop: Callable[[], bool]) -> Done:
        """Queue a workflow, unless this host knows the attempt already, and wait for its end."""
        attempt, workflow = task.attempt(tries), workflow_of(task)
        entry = self._patiently(lambda: self._history(attempt), stop)
        if entry is None and not self._patiently(lambda: self._queued(attempt), stop):
            self._queue(workflow, attempt, stop)
        pause = QUICK
        while entry is None:
            if stop():
                self._cancel(attempt)
                raise StoppedError
            time.sleep(pause)
            pause = min(pause * 1.3, SLOW)
            entry = self._patiently(lambda: self._history(attempt), stop)
            if entry is None and not self._patiently(lambda: self._queued(attempt), stop):
                entry = self._patiently(lambda: self._history(attempt), stop)  # it may have ended between the two
                if entry is None:
                    self._queue(workflow, attempt, stop)  # the host was started anew and has forgotten it
        return self._done(entry, workflow)

    def _done(self, entry: dict[str, Any], workflow: dict[str, Any]) -> Done:
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

    def _queue(self, workflow: dict[str, Any], attempt: str, stop: Callable[[], bool]) -> None:
        body = {"prompt": workflow, "prompt_id": attempt, "client_id": "framepack-farm"}
        said = self._patiently(lambda: self._post("/prompt", body), stop)
        if said.get("prompt_id") != attempt:
            raise RefusedError(f"The ComfyUI at {self.url} gives jobs ids of its own. Update it to 0.3.75 or newer.")

    def _cancel(self, attempt: str) -> None:
        try:
            self._post("/queue", {"delete": [attempt]})
            if self._queued(attempt):
                self._post("/interrupt", {"prompt_id": attempt})
        except (OSError, ValueError):
            return  # a host that is gone runs nothing

    def _patiently(self, ask: Callable[[], Any], stop: Callable[[], bool]) -> Any:
        """What a host answers, which may be gone for a while. Raises FailedError where it stays away."""
        end = time.monotonic() + self.patience
        while True:
            try:
                return ask()
            except urllib.error.HTTPError as fault:
                text = fault.read(2000).decode("utf-8", "replace")
                raise RefusedError(f"{self.name} rejects the workflow: {_reason(text)}") from fault
            except (OSError, ValueError) as fault:
                if time.monotonic() > end:
                    raise FailedError(f"{self.name} does not answer: {fault}") from fault
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


def _reason(text: str) -> str:
    """A host's own words for a workflow that it rejects."""
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
    """An actor on Ray that does whole job files, one after another; it loads a model once."""

    def __init__(self, ray: Any, actor: Any, make: Callable[[], Any], name: str):
        self.ray, self.actor, self.make, self.name = ray, actor, make, name

    def do(self, task: Task, tries: int, stop: Callable[[], bool]) -> Done:
        """Sample a job file; a dead actor is replaced before the job is tried again."""
        if "job" not in task.line:
            raise RefusedError(f"Line {task.number} is a workflow, which only ComfyUI runs. Give --host URL.")
        bundle = Path(task.line["job"])
        out = task.line.get("out", str(bundle.with_suffix(".latent")))
        asked = self.actor.do.remote(str(bundle), out, task.line.get("seed"))
        while True:
            done, _ = self.ray.wait([asked], timeout=0.2)
            if done:
                break
            if stop():
                self.ray.kill(self.actor)
                raise StoppedError
        try:
            made, reused = self.ray.get(asked)
        except self.ray.exceptions.RayTaskError as fault:
            cause = getattr(fault, "cause", None)
            kind = RefusedError if isinstance(cause, FramePackError) else FailedError
            raise kind(f"{bundle.name}: {str(cause or fault)[-400:]}") from fault
        except self.ray.exceptions.RayError as fault:
            self.actor = self.make()
            raise FailedError(f"The worker died ({type(fault).__name__}).") from fault
        return Done(target=self.name, outputs=[out], made=made, reused=reused)
