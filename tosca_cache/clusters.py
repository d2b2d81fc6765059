"""What joblib needs to run jobs on loky, on Dask and on Ray: processes started here or a cluster found, and a backend."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tosca_cache.errors import ToscaError, UsageError
from tosca_cache.processes import is_alive

PATIENCE = 30  # seconds that a cluster may take to answer, and again until its first worker is there
_MODULES = {"dask": "distributed", "ray": "ray"}


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    slots: jobs that each machine can run at a time, by the machine's address. backend: makes joblib's backend for n jobs.
    """

    slots: dict[str, int]
    backend: Callable[[int], Any]


class Gone(Exception):
    """The scheduler does not answer any more."""


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


def losses(backend: str) -> tuple[type[BaseException], ...]:
    """The exceptions that say that a worker or the cluster is gone, as opposed to what a job raises."""
    module = library(backend)
    if backend == "ray":
        names = ("WorkerCrashedError", "ActorDiedError", "NodeDiedError", "LocalRayletDiedError", "ObjectLostError")
        memory = ("OutOfMemoryError", "TaskCancelledError")
        return tuple(getattr(module.exceptions, name) for name in names + memory)
    from asyncio import CancelledError as Cancelled
    from concurrent.futures import CancelledError

    return (module.KilledWorker, module.comm.CommClosedError, CancelledError, Cancelled)


def loky(stack: ExitStack, threads: int) -> Any:
    """joblib's own backend of processes, which end when the stack closes, or this process, and not some minutes later."""
    from joblib.externals.loky import get_reusable_executor
    from joblib.parallel import LokyBackend

    stack.callback(lambda: get_reusable_executor().shutdown(wait=True, kill_workers=True))
    return LokyBackend(inner_max_num_threads=threads, initializer=_end_with, initargs=(os.getpid(),))


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


def dask(stack: ExitStack, n_jobs: int, scheduler: str | None) -> Cluster:
    """Connects to a scheduler, or starts one with `n_jobs` processes of one thread on this machine."""
    distributed = library("dask")
    if scheduler is None:
        with _deaf_to_ctrl_c():
            cluster = distributed.LocalCluster(
                n_workers=n_jobs,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=0,  # by default a worker is killed at its share of the memory, also while there is plenty
                silence_logs=logging.CRITICAL,
            )
        stack.enter_context(cluster)
    try:
        client = stack.enter_context(distributed.Client(scheduler or cluster, timeout=PATIENCE, set_as_default=False))
        client.wait_for_workers(1, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise _unreachable("Dask", scheduler, error) from error
    slots: Counter[str] = Counter()
    for address, threads in client.nthreads().items():
        slots[address.rpartition(":")[0]] += threads
    return Cluster(dict(slots), lambda jobs: _dask_backend(client))


def ray(stack: ExitStack, n_jobs: int, scheduler: str | None) -> Cluster:
    """Connects to a cluster, or starts one with `n_jobs` slots on this machine."""
    module = library("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    local = {"address": "local", "num_cpus": n_jobs, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        _knock(scheduler)
        with _path_for_children():
            module.init(**quiet, **(local if scheduler is None else {"address": scheduler}))
    except (OSError, ValueError, RuntimeError, TimeoutError) as error:
        raise _unreachable("Ray", scheduler, error) from error
    stack.callback(module.shutdown)
    nodes = [node for node in module.nodes() if node["Alive"]]
    slots = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
    if not any(slots.values()):
        raise _unreachable("Ray", scheduler, "no machine of it has a core to give")
    gpus = int(sum(node["Resources"].get("GPU", 0) for node in nodes))
    return Cluster(slots, lambda jobs: _ray_backend(module, 1 / -(-jobs // gpus) if gpus else 0))


def _dask_backend(client: Any) -> Any:
    from joblib.parallel import BACKENDS, EXTERNAL_BACKENDS

    EXTERNAL_BACKENDS["dask"]()  # registers it, which joblib otherwise does at the first `parallel_config`

    class Dask(BACKENDS["dask"]):  # type: ignore[misc] # joblib has no types
        """joblib's, but a job that has lost its workers is an error; joblib 1.6 waits for it for ever."""

        def submit(self, func: Any, callback: Any = None) -> Any:
            """Hands a job to the cluster, and reports its failure, too."""
            future = super().submit(func, callback)

            def report(done: Any) -> None:
                if done.exception() is not None:
                    callback(done.exception())

            future.add_done_callback(report)
            return future

        def effective_n_jobs(self, n_jobs: int) -> int:
            """Jobs under way at a time; raises `Gone` if the scheduler is."""
            if client.status not in ("running", "connecting"):
                raise Gone("the connection to the scheduler is closed")
            try:
                return max(2, super().effective_n_jobs(n_jobs))  # for 1, joblib would run the jobs in this process
            except (OSError, RuntimeError, ValueError) as error:  # it asks the scheduler, which may be gone
                raise Gone(str(error)) from error

    return Dask(client=client)


def _ray_backend(ray: Any, gpus: float) -> Any:
    from joblib.parallel import ParallelBackendBase

    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_call)

    class Ray(ParallelBackendBase):  # type: ignore[misc] # joblib has no types
        """A task of Ray for each job.

        Ray's own backend for joblib deals jobs out in turn to processes whether they are free or not, and gives results
        only when all are there.
        """

        supports_retrieve_callback = True

        def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
            """Begins a run; returns how many jobs are under way at a time."""
            self.parallel = parallel
            self.begun: set[Any] = set()
            return self.effective_n_jobs(n_jobs)

        def effective_n_jobs(self, n_jobs: int) -> int:
            """Jobs under way at a time."""
            return max(2, n_jobs)  # for 1, joblib would run the jobs in this process

        def submit(self, func: Any, callback: Any = None) -> Any:
            """Hands a job to the cluster."""
            reference = task.remote(func)
            self.begun.add(reference)
            future = reference.future()
            future.add_done_callback(lambda done: self.begun.discard(reference))
            future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, future: Any) -> Any:
            """The result of a finished job; raises what the job raised."""
            try:
                return future.result()
            except ray.exceptions.RayTaskError as error:  # a job's own error, in Ray's wrapping
                raise error.cause from None

        def abort_everything(self, ensure_ready: bool = True) -> None:
            """Cancels all jobs that have begun."""
            for reference in list(self.begun):
                ray.cancel(reference, force=True)

    return Ray()


def _call(func: Callable[[], Any]) -> Any:
    return func()


def _knock(address: str | None) -> None:
    """Raises `OSError` if nobody listens at host:port; `ray.init` would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started in the meantime leave Ctrl-C to this one, which ends them; else each prints a trace."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _path_for_children() -> Iterator[None]:
    """Lets processes that are started in the meantime import what this one can; loky and Dask do that by themselves."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _unreachable(what: str, scheduler: str | None, error: object) -> ToscaError:
    problem = f"{what} cannot be started here" if scheduler is None else f"no cluster of {what} with a worker answers"
    return ToscaError(
        f"{problem}: {error}",
        where=scheduler or f"--backend {what.lower()}",
        remedy="Start it and its workers, or correct --scheduler." if scheduler else "Use --backend loky.",
    )
