"""Where jobs run: processes of loky on this machine, or a running cluster of Dask or of Ray; each gives futures."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from asyncio import CancelledError as AsyncCancelled
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tosca_cache.errors import ToscaError, UsageError
from tosca_cache.processes import is_alive

PATIENCE = 30  # seconds that a cluster may take to answer, and again until its first worker is there
_MODULES = {"dask": "distributed", "ray": "ray"}


class WorkerDied(ToscaError):
    """A worker process ended in the middle of a job, or its cluster was lost; what gave no result is to be run again."""


class ClusterLost(WorkerDied):
    """The cluster does not answer any more; there is no use in calling `run` again."""


@dataclass(frozen=True)
class Cluster:
    """Running processes.

    slots: jobs that each machine can run at a time, by the machine's address.
    ready: called before jobs are submitted, and while none ends; raises `ClusterLost` if the cluster is.
    submit: runs a function of no arguments there, and gives its future. end: gives up the jobs of some futures.
    lost: the exceptions that say that a worker or the cluster is gone, as opposed to what a job raises.
    """

    slots: dict[str, int]
    submit: Callable[[Callable[[], Any]], Future[Any]]
    end: Callable[[Collection[Future[Any]]], None]
    lost: tuple[type[BaseException], ...]
    ready: Callable[[], None] = lambda: None


def library(backend: str) -> Any:
    """The module that a backend needs; raises `UsageError` if it is not installed."""
    try:
        return import_module(_MODULES[backend])
    except ImportError as error:
        raise UsageError(
            f"the backend {backend!r} needs a library that is not installed ({error})",
            where="--backend",
            remedy=f"pip install 'tosca-cache[{backend}]'",
        ) from error


def loky(stack: ExitStack, n_jobs: int, threads: int) -> Cluster:
    """Processes of this machine, which end when the stack closes, or this process, and not some minutes later."""
    from joblib.externals.loky import ProcessPoolExecutor

    env = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    started: list[Any] = []

    def submit(job: Callable[[], Any]) -> Future[Any]:
        """Starts the processes if there are none."""
        if not started:
            started.append(ProcessPoolExecutor(n_jobs, initializer=_end_with, initargs=(os.getpid(),), env=env))
        future: Future[Any] = started[0].submit(job)
        return future

    def end(jobs: Collection[Future[Any]] = ()) -> None:
        """Ends the processes, in the middle of their jobs; loky takes it ill if one was just handed in."""
        wait([job for job in jobs if job.cancel()], timeout=1)
        while started:
            started.pop().shutdown(wait=True, kill_workers=True)

    stack.callback(end)
    return Cluster({"here": n_jobs}, submit, end, (BrokenExecutor,))


def _end_with(parent: int) -> None:
    """Ends this worker soon after the process that it works for ends; what it was about to begin is not begun.

    That is its parent or, where a server starts workers, another one. The kernel's own signal (prctl) would come at the end
    of the thread that started the worker.
    """
    starter = os.getppid()

    def watch() -> None:
        while os.getppid() == starter and is_alive(parent):
            time.sleep(1)
        os._exit(1)

    if not is_alive(parent):
        os._exit(1)
    threading.Thread(target=watch, name="parent", daemon=True).start()


def dask(stack: ExitStack, n_jobs: int | None, scheduler: str) -> Cluster:
    """Connects to a scheduler of Dask."""
    distributed = library("dask")
    try:
        client = stack.enter_context(distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False))
        client.wait_for_workers(1, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise _unreachable("Dask", scheduler, error) from error
    slots: Counter[str] = Counter()
    for address, threads in client.nthreads().items():
        slots[address.rpartition(":")[0]] += threads
    executor = client.get_executor(pure=False)

    def ready() -> None:
        """Jobs of a cluster without a worker would wait for ever."""
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, RuntimeError, TimeoutError, ValueError, CancelledError, AsyncCancelled) as error:
            remedy = "Start it, then run the same command again."
            raise ClusterLost(f"The cluster was lost: {error}", where=scheduler, remedy=remedy) from error

    def end(jobs: Collection[Future[Any]]) -> None:
        """Cancels jobs."""
        for job in jobs:
            job.cancel()

    lost = (distributed.KilledWorker, distributed.comm.CommClosedError, CancelledError, AsyncCancelled)
    return Cluster(dict(slots), executor.submit, end, lost, ready)


def ray(stack: ExitStack, n_jobs: int | None, scheduler: str) -> Cluster:
    """Connects to a cluster of Ray. n_jobs: jobs at a time, which share its GPUs; None: as many as it has slots."""
    module = library("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        host, _, port = scheduler.removeprefix("ray://").rpartition(":")
        if port.isdigit():  # `ray.init` would try for minutes where nobody listens
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
        module.init(scheduler, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, TimeoutError) as error:
        raise _unreachable("Ray", scheduler, error) from error
    stack.callback(module.shutdown)
    nodes = [node for node in module.nodes() if node["Alive"]]
    slots = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
    if not any(slots.values()):
        raise _unreachable("Ray", scheduler, "no machine of it has a core to give")
    gpus = int(sum(node["Resources"].get("GPU", 0) for node in nodes))
    share = 1 / -(-(n_jobs or sum(slots.values())) // gpus) if gpus else 0
    task = module.remote(num_cpus=1, num_gpus=share, max_retries=0)(_call)
    begun: dict[Future[Any], Any] = {}

    def submit(job: Callable[[], Any]) -> Future[Any]:
        """Each job is a task of Ray. Its own backend for joblib deals jobs out whether processes are free or not."""
        reference = task.remote(job)
        future: Future[Any] = reference.future()
        begun[future] = reference
        future.add_done_callback(begun.pop)
        return future

    def end(jobs: Collection[Future[Any]]) -> None:
        """Cancels jobs that have begun."""
        for reference in [begun[job] for job in jobs if job in begun]:
            module.cancel(reference, force=True)

    names = ("WorkerCrashedError", "ActorDiedError", "NodeDiedError", "LocalRayletDiedError", "ObjectLostError")
    lost = tuple(getattr(module.exceptions, name) for name in (*names, "OutOfMemoryError", "TaskCancelledError"))
    return Cluster(slots, submit, end, lost)


def _call(job: Callable[[], Any]) -> Any:
    return job()


def _unreachable(what: str, scheduler: str, error: object) -> ToscaError:
    return ToscaError(
        f"no cluster of {what} with a worker answers: {error}",
        where=scheduler,
        remedy="Start it and its workers, or correct --scheduler.",
    )
