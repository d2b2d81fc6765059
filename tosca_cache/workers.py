"""Independent jobs on several processes or machines: joblib's loky, a Dask cluster, or Ray.

    with Workers(n_jobs=4) as workers:
        for result in workers.run(function, [(first, job), (second, job)]):   # as they come, in no order
            ...

- `function` lies at the top of a module that the workers can import; arguments and results are plain data (they are
  pickled on the way, which is transport and not storage), and a result says which job it is of.
- What a job raises is raised by `run`, which then yields nothing more. If a worker dies (killed, out of memory), `run`
  raises `WorkerDied`, and may be called again, within the same `with`, with the jobs that gave no result: jobs must be safe
  to repeat. Dask itself first gives the job of a dead worker to another one, a few times.
- At most `n_jobs` jobs are under way at a time, and `jobs` may be a generator: it is read as workers become free.
- Leaving early (an error, Ctrl-C, kill -9, closing the iterator) ends the processes that were started here, in the middle
  of their jobs. A cluster is left alone, and finishes the jobs that it has begun.

Threads are shared out so that jobs on one machine do not fight: a job runs under `torch.set_num_threads(threads_here())`,
which is the cores of its machine divided by the jobs that may run there at a time, and never more than OMP_NUM_THREADS.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from contextvars import ContextVar
from functools import partial
from itertools import islice
from typing import Any, Self, TypeVar

from tosca_cache import clusters
from tosca_cache.clusters import ClusterLost, WorkerDied
from tosca_cache.errors import UsageError
from tosca_cache.processes import tidied_memory

__all__ = ["BACKENDS", "ClusterLost", "WorkerDied", "Workers", "threads_here"]

BACKENDS = ("loky", "dask", "ray")
JOBS_A_CORE = 4  # more processes than that only take memory
R = TypeVar("R")

_threads: ContextVar[int | None] = ContextVar("threads", default=None)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_here() -> int:
    """Threads that the calling job may use; outside of a job, all cores, or fewer if OMP_NUM_THREADS says so."""
    return _threads.get() or min(cores(), _omp_threads())


def _omp_threads() -> int:
    """Threads that the environment allows a process that computes."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if re.fullmatch("0*[1-9][0-9]{0,8}", first) else sys.maxsize


def check_request(backend: str, n_jobs: int | None, scheduler: str | None) -> None:
    """Raises `UsageError` for a backend that does not exist, for a scheduler that loky has no use for or others lack, and
    for no jobs or more than `JOBS_A_CORE` a core of this machine, if they are to run here.
    """
    most, jobs = JOBS_A_CORE * cores(), 1 if n_jobs is None else n_jobs
    for wrong, problem, where, remedy in (
        (backend not in BACKENDS, f"there is no backend {backend!r}", "--backend", f"use one of {', '.join(BACKENDS)}"),
        (jobs < 1, f"--jobs must be at least 1, not {jobs}", "--jobs", "give for example --jobs 2"),
        (
            backend == "loky" and jobs > most,
            f"--jobs {jobs} would start {jobs} processes on this machine, which has {cores()} cores",
            "--jobs",
            f"give at most {most}; more than one a core (--jobs {cores()}) rarely gain anything",
        ),
        (
            (scheduler is None) != (backend == "loky"),
            "loky runs on this machine, dask and ray on a running cluster",
            "--scheduler",
            "add --backend dask or --backend ray, or leave --scheduler out" if scheduler else "add --scheduler ADDRESS",
        ),
    ):
        if wrong:
            raise UsageError(problem, where=where, remedy=remedy)


class Workers:
    """Processes that run jobs; a context manager that ends them, and whatever else it started.

    backend: `loky` (processes on this machine), `dask` or `ray`. n_jobs: jobs under way at a time; if None, one for each
    core of this machine or, with a scheduler, for each slot of its cluster. scheduler: the address of a running cluster
    (`tcp://host:8786` for Dask, what `ray.init` takes for Ray).

    Raises `UsageError` for what `check_request` refuses, and when a library is not installed; entering raises `ToscaError`
    if a cluster does not answer or has no workers.
    """

    def __init__(self, backend: str = "loky", n_jobs: int | None = None, scheduler: str | None = None) -> None:
        check_request(backend, n_jobs, scheduler)
        if backend != "loky":
            clusters.library(backend)
        self.backend = backend
        self.n_jobs = n_jobs or cores()
        self._given, self._scheduler = n_jobs, scheduler
        self._neighbours = self.n_jobs  # jobs that one machine may have to run at a time
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(tidied_memory())
            if self._scheduler is None:
                self._cluster = clusters.loky(stack, self.n_jobs, _share(self.n_jobs, _omp_threads()))
            else:
                start = {"dask": clusters.dask, "ray": clusters.ray}[self.backend]
                self._cluster = start(stack, self._given, self._scheduler)
                slots = self._cluster.slots.values()
                self.n_jobs = self._given or sum(slots)
                self._neighbours = min(self.n_jobs, max(slots))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def run(self, function: Callable[..., R], jobs: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """The results of `function(*job)` for all jobs, as they come; see the module for what a job must be.

        Raises `WorkerDied`, of which `ClusterLost` cannot be mended by another `run`, and whatever a job raises.
        """
        most = _omp_threads()  # here: workers have a variable of their own
        left = (partial(_call, function, self._neighbours, most, job) for job in jobs)
        cluster, running = self._cluster, set[Future[Any]]()
        cluster.ready()
        try:
            running = {cluster.submit(job) for job in islice(left, self.n_jobs)}
            while running:
                done, running = wait(running, clusters.PATIENCE, FIRST_COMPLETED)
                if not done:
                    cluster.ready()
                running |= {cluster.submit(job) for job in islice(left, len(done))}
                for future in done:
                    error, result = future.result()
                    if error is not None:
                        raise error
                    yield result
        except cluster.lost as error:
            cluster.end(running)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise WorkerDied(
                f"A worker ended in the middle of a job: {reason}",
                where=f"--backend {self.backend}",
                remedy="Run the same command again; if memory was short, with fewer --jobs.",
            ) from error
        except BaseException:
            cluster.end(running)
            raise


def _share(jobs: int, most: int) -> int:
    """Threads of a job on this machine beside others."""
    return max(1, min(cores() // jobs, most))


def _call(function: Callable[..., R], neighbours: int, most: int, job: tuple[Any, ...]) -> tuple[Exception | None, Any]:
    """What a job raises, and what it gives. most: threads that the environment of who asked allows."""
    threads = _share(neighbours, most)
    token = _threads.set(threads)
    torch = sys.modules.get("torch")  # if the job needs it, its module has imported it; if not, it shall not be loaded
    before = None if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        return None, function(*job)
    except Exception as error:
        return error, None
    finally:
        _threads.reset(token)
        if torch is not None and before is not None:
            torch.set_num_threads(before)
