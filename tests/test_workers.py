"""Jobs on loky, Dask and Ray: every result once, errors as they are, and a worker's death said."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import cluster_of

from tosca_cache.errors import StoreError, ToscaError, UsageError
from tosca_cache.processes import MEMORY
from tosca_cache.workers import WorkerDied, Workers, cores, threads_here


def square(number):
    return number, number**2


def refuse(number):
    raise StoreError(f"no room for {number}", where="here", remedy="make room")


def die_once(number, marker):
    """Kills its own process, the first time."""
    if number == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def look(number):
    time.sleep(0.1)
    return os.getpid(), threads_here()


@pytest.fixture(
    scope="module", params=["loky", *(pytest.param(name, marks=pytest.mark.long) for name in ("dask", "ray"))]
)
def workers(request):
    """Two worker processes of each kind, started once."""
    module = {"dask": "distributed", "ray": "ray"}.get(request.param)
    if module is not None and find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    with ExitStack() as stack:
        scheduler = None if module is None else stack.enter_context(cluster_of(request.param))
        yield stack.enter_context(Workers(request.param, 2, scheduler))


def run_jobs(function, jobs, n_jobs):
    """One batch of jobs on workers of loky."""
    with Workers("loky", n_jobs) as started:
        yield from started.run(function, jobs)


def test_a_cluster_of_dask_in_short():
    """What the tests with `workers` show of it at length."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    with cluster_of("dask") as scheduler, Workers("dask", 2, scheduler) as started:
        assert sorted(started.run(square, ((number,) for number in range(7)))) == [(n, n**2) for n in range(7)]
        with pytest.raises(StoreError, match="no room for"):
            list(started.run(refuse, [(1,), (2,)]))


def test_jobs_run_elsewhere_share_the_cores_give_each_result_once_and_errors_as_they_are(workers):
    found = list(workers.run(look, [(number,) for number in range(4)]))
    assert os.getpid() not in {process for process, _ in found}
    assert {threads for _, threads in found} == {max(1, cores() // 2)}
    assert sorted(workers.run(square, ((number,) for number in range(7)))) == [(n, n**2) for n in range(7)]
    with pytest.raises(StoreError, match="no room for") as raised:
        list(workers.run(refuse, [(1,), (2,)]))
    assert (raised.value.where, raised.value.remedy) == ("here", "make room")
    assert str(raised.value).startswith("no room for") and "Traceback" not in str(raised.value)
    results = workers.run(square, [(number,) for number in range(5)])
    next(results)
    results.close()
    assert sorted(workers.run(square, [(1,), (2,)])) == [(1, 1), (2, 4)], "leaving early leaves the workers usable"


def test_threads_that_the_environment_allows(monkeypatch):
    for said, threads in ((" 1,4", 1), ("0001", 1), *((text, cores()) for text in ("0", "-1", "many", "9" * 5000))):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert threads_here() == threads
    for said, threads in (("1", 1), ("999", cores())):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert [found for _, found in run_jobs(look, [(1,)], n_jobs=1)] == [threads]


def test_after_a_death_the_same_workers_run_what_is_left(workers, tmp_path):
    left, deaths = set(range(5)), 0
    while left and deaths < 3:
        try:
            for number in workers.run(die_once, [(number, tmp_path / "marker") for number in sorted(left)]):
                left.discard(number)
        except WorkerDied:
            deaths += 1
    assert not left
    assert deaths == (0 if workers.backend == "dask" else 1), "Dask gives the job to another worker by itself"


def test_a_job_that_always_kills_its_worker_ends_the_run(workers):
    # Dask starts no worker again that has died before it was quite there.
    with pytest.raises(WorkerDied, match=r"ended in the middle of a job|cluster was lost"):
        list(workers.run(die, [(), ()]))


ORPHANS = """
import sys, time
sys.path[:0] = {path!r}
from test_workers import look_long, run_jobs
for pid in run_jobs(look_long, [(0,), (0.2,), (600,), (600,)], n_jobs=2):
    print(pid, flush=True)
"""


def look_long(seconds):
    time.sleep(seconds)
    return os.getpid()


def kill_alone(code, pids, whole=False):
    """Starts code in a process and kills it, alone or with its helpers, once pids(process) gives those of its workers."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    children = pids(process)
    os.killpg(process.pid, signal.SIGKILL) if whole else process.kill()
    process.wait()
    process.stdout.close()
    return process, children


def two_lines(process):
    return {int(process.stdout.readline()) for _ in range(2)}


def wait_for(condition, seconds=500):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def gone(pids):
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_loky_workers_do_not_outlive_a_killed_parent():
    _, children = kill_alone(ORPHANS.format(path=sys.path), two_lines)
    wait_for(lambda: gone(children))


@pytest.mark.skipif(not MEMORY.is_dir(), reason="named semaphores are files on Linux only")
def test_what_a_process_killed_with_all_its_helpers_left_is_removed_by_the_next():
    process, _ = kill_alone(ORPHANS.format(path=sys.path), two_lines, whole=True)
    foreign = MEMORY / f"sem.loky-{process.pid + 1}-test"
    foreign.touch()
    try:
        assert list(MEMORY.glob(f"*-{process.pid}-*"))
        assert list(run_jobs(square, [(3,), (4,)], n_jobs=2))
        assert not [path for path in MEMORY.iterdir() if re.search(f"[-_]{process.pid}([-_]|$)", path.name)]
        assert foreign.exists() and not (MEMORY / f"tosca-workers-{os.getpid()}").exists()
    finally:
        foreign.unlink()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("slurm", 2), "--backend"),
        (("loky", 0), "--jobs"),
        (("loky", 100_000), "--jobs"),
        (("ray", 2), "--scheduler"),
        (("loky", 2, "tcp://here:1"), "--scheduler"),
    ],
)
def test_requests_that_cannot_be(arguments, option):
    with pytest.raises(UsageError) as raised:
        Workers(*arguments)
    assert raised.value.where == option


def test_a_cluster_that_does_not_answer_and_libraries_that_are_not_there(monkeypatch):
    for backend, module in (("dask", "distributed"), ("ray", "ray")):
        with monkeypatch.context() as patch, pytest.raises(UsageError, match=rf"tosca-cache\[{backend}\]"):
            patch.setitem(sys.modules, module, None)
            Workers(backend, 2, "127.0.0.1:1")
    pytest.importorskip("ray")
    with pytest.raises(ToscaError, match="no cluster of Ray") as raised, Workers("ray", 2, "127.0.0.1:1"):
        pass
    assert raised.value.where == "127.0.0.1:1" and "--scheduler" in raised.value.remedy
