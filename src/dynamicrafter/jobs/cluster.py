"""Workers as actors of a Ray cluster; pictures and clips travel with the tasks, so that no disk need be shared."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dynamicrafter
from dynamicrafter.errors import InputError
from dynamicrafter.jobs.pool import WorkerEvent, WorkerLost
from dynamicrafter.jobs.worker import Task, TasksDone, TasksFailed, Worker, WorkerReady, WorkerSetup, answer, refusal

if TYPE_CHECKING:
    from ray import ObjectRef

_PATIENCE = 10.0  # seconds for a cluster to answer at all
LOCAL = "local"  # as an address: a cluster on this machine, for this run alone


class RemoteWorker:
    """A worker on some machine of the cluster. Ray makes actors of it."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._worker: Worker | None = None

    def load(self) -> WorkerReady | TasksFailed:
        """Load the model. Not where the actor arises, whose errors Ray would wrap."""
        logging.getLogger("dynamicrafter").addHandler(logging.NullHandler())  # warnings travel with the answers
        try:
            self._worker = Worker(self._setup)
        except Exception as error:
            return refusal(error)
        return self._worker.ready()

    def make(self, tasks: Sequence[Task]) -> TasksDone | TasksFailed:
        assert self._worker is not None
        return answer(self._worker, tasks)


@dataclass(slots=True)
class _Member:
    name: str
    actor: Any
    awaited: ObjectRef | None
    ready: bool = False


class RayPool:
    """Actors of a Ray cluster; see `pool.WorkerPool`.

    Args:
        setup: its model's device None for a GPU each where the cluster has any, and the CPU elsewhere.
        address: of a cluster, as `ray.init` takes it: HOST:PORT, ray://HOST:PORT, auto; or "local".
        num_workers: None for one for each GPU of the cluster, or, where it has none, for each of its CPUs.
        most: no more workers than this, which is how many batches there are.

    Raises:
        InputError: ray is not installed, there is no such cluster, or it is too small for a single worker.
    """

    def __init__(self, setup: WorkerSetup, address: str, *, num_workers: int | None, most: int) -> None:
        self._ray = ray = _import_ray()
        _join(ray, address, num_cpus=max(os.cpu_count() or 1, (num_workers or 0) * setup.threads))
        total = ray.cluster_resources()
        gpus = int(total.get("GPU", 0)) if setup.model.device != "cpu" else 0
        places = gpus or int(total.get("CPU", 0)) // setup.threads
        if not places:
            ray.shutdown()
            raise InputError(f"ray's cluster {address} has no {setup.threads} CPUs for a worker; give fewer --threads.")
        self._setup = setup
        # Zero restarts: a lost worker's tasks come back here first, so that their number of attempts is known.
        self._kind = ray.remote(num_cpus=setup.threads, num_gpus=1 if gpus else 0, max_restarts=0)(RemoteWorker)
        self._workers: dict[str, _Member] = {}
        for number in range(1, min(num_workers or places, most) + 1):
            self._start(f"ray {number}")

    def idle(self) -> list[str]:
        return [worker.name for worker in self._workers.values() if worker.ready and worker.awaited is None]

    def give(self, name: str, tasks: Sequence[Task]) -> None:
        worker = self._workers[name]
        worker.awaited = worker.actor.make.remote(list(tasks))

    def wait(self, seconds: float) -> list[WorkerEvent]:
        awaited = {worker.awaited: worker for worker in self._workers.values() if worker.awaited is not None}
        if not awaited:
            return []
        arrived, _ = self._ray.wait(list(awaited), num_returns=1, timeout=seconds)
        return [self._received(awaited[reference], reference) for reference in arrived]

    def replace(self, name: str) -> None:
        self._ray.kill(self._workers[name].actor)
        self._start(name)

    def close(self) -> None:
        for worker in self._workers.values():
            self._ray.kill(worker.actor)
        self._workers.clear()
        self._ray.shutdown()

    def _start(self, name: str) -> None:
        actor = self._kind.remote(self._setup)
        self._workers[name] = _Member(name, actor, actor.load.remote())

    def _received(self, worker: _Member, reference: ObjectRef) -> WorkerEvent:
        try:
            what = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the actor, its machine or its answer is gone
            self._start(worker.name)
            return WorkerEvent(worker.name, WorkerLost(f"was lost ({type(error).__name__})"))
        worker.awaited = None
        if isinstance(what, WorkerReady):
            if what.version != dynamicrafter.__version__:
                text = f"ray's workers have dynamicrafter {what.version}, this machine {dynamicrafter.__version__}"
                return WorkerEvent(worker.name, TasksFailed(f"{text}; install one version on all.", by_rule=True))
            worker.ready = True
        return WorkerEvent(worker.name, what)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError('ray is not installed; install it: pip install "dynamicrafter[ray]".') from None
    return ray


def _join(ray: Any, address: str, *, num_cpus: int) -> None:
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        options |= {"include_dashboard": False, "num_cpus": num_cpus}
    ours = signal.getsignal(signal.SIGTERM)
    try:
        _check_reachable(address)
        ray.init(address=address, **options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)  # which Ray has taken, to end the process without a word
    except (OSError, ValueError, RuntimeError) as error:
        said = str(error).split("\n")[0].strip()
        raise InputError(
            f"ray's cluster {address} can't be joined ({said}); check the address, or give {LOCAL} for one here."
        ) from None


def _check_reachable(address: str) -> None:
    """Raises OSError where nobody answers at HOST:PORT, for which Ray would wait many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
