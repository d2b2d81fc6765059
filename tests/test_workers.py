"""Jobs on loky, Dask and Ray: every result once, errors as they are, and a worker's death said.

That a killed worker loses no job is shown in sweep/test_sweep_processes.py, that none outlives a killed parent in
cli/test_extract_workers_cli.py.
"""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import cluster_of

from tosca_cache.errors import StoreError, ToscaError, UsageError
from tosca_cache.processes import MEMORY
from tosca_cache.workers import WorkerDied, Workers, cores, threads_here


def square(number):
    return number, number**2


def refuse(number):
    raise StoreError(f"no room for {number}", where="here", remedy="make room")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def look(seconds):
    time.sleep(seconds)
    return os.getpid(), threads_here()


def run_jobs(function, jobs, n_jobs):
    """One batch of jobs on workers of loky."""
    with Workers("loky", n_jobs) as started:
        yield from started.run(function, jobs)


LONG = [pytest.param(name, marks=pytest.mark.long) for name in ("dask", "ray")]


@pytest.fixture(scope="module", params=["loky", "dask", LONG[1]])
def workers(request):
    """Two worker processes of each kind, started once."""
    if request.param == "loky":
        with Workers("loky", 2) as started:
            yield started
        return
    pytest.importorskip({"dask": "distributed"}.get(request.param, request.param))
    with cluster_of(request.param) as scheduler, Workers(request.param, 2, scheduler) as started:
        yield started


def test_jobs_run_elsewhere_share_the_cores_give_each_result_once_and_errors_as_they_are(workers):
    found = list(workers.run(look, [(0.1,)] * 4))
    assert os.getpid() not in {process for process, _ in found}
    assert {threads for _, threads in found} == {max(1, cores() // 2)}
    assert sorted(workers.run(square, ((number,) for number in range(7)))) == [(n, n**2) for n in range(7)]
    with pytest.raises(StoreError, match=r"^no room for") as raised:
        list(workers.run(refuse, [(1,), (2,)]))
    assert (raised.value.where, raised.value.remedy) == ("here", "make room")
    results = workers.run(square, [(number,) for number in range(5)])
    next(results)
    results.close()
    assert sorted(workers.run(square, [(1,), (2,)])) == [(1, 1), (2, 4)], "leaving early leaves the workers usable"


@pytest.mark.parametrize("workers", ["loky", *LONG], indirect=True)
def test_a_job_that_always_kills_its_worker_ends_the_run(workers):
    # Dask starts no worker again that has died before it was quite there.
    with pytest.raises(WorkerDied, match=r"ended in the middle of a job|cluster was lost"):
        list(workers.run(die, [(), ()]))


def test_threads_that_the_environment_allows(monkeypatch):
    for said, threads in ((" 1,4", 1), ("0001", 1), *((text, cores()) for text in ("0", "-1", "many", "9" * 5000))):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert threads_here() == threads
    for said, threads in (("1", 1), ("999", cores())):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert [found for _, found in run_jobs(look, [(0,)], n_jobs=1)] == [threads]


ORPHANS = """
import sys
sys.path[:0] = {path!r}
from test_workers import look, run_jobs
for pid, _ in run_jobs(look, [(0,), (0.2,), (600,), (600,)], n_jobs=2):
    print(pid, flush=True)
"""


@pytest.mark.skipif(not MEMORY.is_dir(), reason="named semaphores are files on Linux only")
def test_what_a_process_killed_with_all_its_helpers_left_is_removed_by_the_next():
    code = ORPHANS.format(path=sys.path)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert all(int(process.stdout.readline()) for _ in range(2))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    foreign = MEMORY / f"sem.loky-{process.pid + 1}-test"
    foreign.touch()
    try:
        assert list(MEMORY.glob(f"*-{process.pid}-*"))
        assert list(run_jobs(square, [(3,), (4,)], n_jobs=2))
        assert not [path for path in MEMORY.iterdir() if re.search(f"[-_]{process.pid}([-_]|$)", path.name)]
        assert foreign.exists() and not (MEMORY / f"tosca-workers-{os.getpid()}").exists()
    finally:
        foreign.unlink()


def test_a_cluster_that_does_not_answer_and_libraries_that_are_not_there(monkeypatch):
    for backend, module in (("dask", "distributed"), ("ray", "ray")):
        with monkeypatch.context() as patch, pytest.raises(UsageError, match=rf"tosca-cache\[{backend}\]"):
            patch.setitem(sys.modules, module, None)
            Workers(backend, 2, "127.0.0.1:1")
    pytest.importorskip("ray")
    with pytest.raises(ToscaError, match="no cluster of Ray") as raised, Workers("ray", 2, "127.0.0.1:1"):
        pass
    assert raised.value.where == "127.0.0.1:1" and "--scheduler" in raised.value.remedy
