"""`tosca` in this process, and what runs in processes of their own: to be killed, interrupted, or run beside each other.

A process that starts anew loads torch for seconds. These are forked from a server that has loaded it (`warm`), so that they
start at once; each is otherwise a process like any other, with its own working directory, environment and output.
"""

import itertools
import multiprocessing
import os
import pkgutil
import re
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

ENVIRONMENT = dict(os.environ)  # before any test changes it
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["warm"])
HANGS = 1800  # seconds; far beyond what any command of a test takes on a slow and busy machine


def _start_server():
    """The server finds `warm`, and what the tests import, where this process does."""
    own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"}
    with patch.dict(os.environ, ENVIRONMENT | own, clear=True):
        forkserver.ensure_running()


def _run(function, arguments, environment, output, error):
    multiprocessing.current_process()._config["daemon"] = False  # a command may start processes of its own
    os.setsid()  # as a shell starts a command: with a group of its own, which Ctrl-C is for
    for path, number in ((output, 1), (error, 2)):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def _tosca(arguments, before):
    if before is not None:
        before()
    sys.argv = ["tosca", *arguments]
    from tosca_cache.cli import main

    main()


def tosca(*arguments, columns=160, code=None, typed=None, **environment):
    """A command in this process; what holds for every one of them. code: the exit status that is wanted, if any."""
    from typer.testing import CliRunner

    from tosca_cache.cli.app import app

    env = {"COLUMNS": str(columns)} | environment
    result = CliRunner().invoke(app, [*map(str, arguments)], env=env, input=typed)
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exception)
    assert "Traceback" not in result.output, result.output
    assert code is None or result.exit_code == code, result.output
    return result


class Fork:
    """A function at the top of a module, called in a process of its own. output, error: what it has printed until now."""

    def __init__(self, function, *arguments):
        self._folder = tempfile.TemporaryDirectory(prefix="tosca-command-")
        self._files = [Path(self._folder.name) / name for name in ("output", "error")]
        for path in self._files:
            path.touch()
        _start_server()
        given = (function, arguments, dict(os.environ), *map(str, self._files))
        self._process = FORKS.Process(target=_run, args=given, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    @property
    def output(self):
        return self._files[0].read_text(encoding="utf-8")

    @property
    def error(self):
        return self._files[1].read_text(encoding="utf-8")

    @property
    def running(self):
        return self._process.exitcode is None

    def wait(self):
        """The exit status; the negative number of the signal that has ended it."""
        self._process.join(HANGS)
        assert not self.running, f"it has not ended: {self.output}{self.error}"
        return self._process.exitcode

    def wait_until(self, condition):
        """Until the condition holds, which is asked again and again; the command must not end before it does."""
        until = time.monotonic() + HANGS
        while not condition():
            assert self.running or condition(), f"it ended with {self.wait()}: {self.output}{self.error}"
            assert time.monotonic() < until, f"waited in vain: {self.output}{self.error}"
            time.sleep(0.005)

    def kill(self):
        """kill -9, and waits for the end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def interrupt(self):
        """Ctrl-C, which tells the command and every process that it has started."""
        os.killpg(self.pid, signal.SIGINT)
        return self.wait()


class Command(Fork):
    """A running command.

    Arguments:
        arguments: of `tosca`.
        before: called in the new process before the command; a function at the top of a module, for it is pickled.
    """

    def __init__(self, *arguments, before=None):
        super().__init__(_tosca, [str(argument) for argument in arguments], before)


def hold(owner, method, calls=1):
    """For `before`: the command stands still once it has called a method so many times. owner: module:Class."""
    kind, done = pkgutil.resolve_name(owner), itertools.count(1)
    plain = getattr(kind, method)

    def counted(*arguments, **options):
        result = plain(*arguments, **options)
        if next(done) >= calls:
            time.sleep(HANGS)
        return result

    setattr(kind, method, counted)


def after_shards(calls):
    """For `before`: an extraction stands still once it has published so many shards."""
    return partial(hold, "tosca_cache.store:StoreWriter", "publish", calls)


@contextmanager
def cluster_of(backend):
    """The address of a cluster of Dask or Ray of two workers, which can import what this process can."""
    if backend == "dask":
        from distributed import LocalCluster

        with LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, memory_limit=0
        ) as cluster:
            cluster.wait_for_workers(2)
            yield cluster.scheduler_address
        return
    from ray.cluster_utils import Cluster

    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@contextmanager
def warm_loky():
    """Within it, loky starts its workers from the same server."""
    _start_server()
    with patch("joblib.externals.loky.backend.context._DEFAULT_START_METHOD", "forkserver"):
        yield


def loky_worker():
    """The number of a process of loky that this one has started within `warm_loky`."""
    return multiprocessing.active_children()[0].pid


def process_below(pattern):
    """The number of a process that this one has started, or that one of those has, by its command."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
    for pid, command in commands.items():
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid() != pid and re.match(pattern, command):
            return pid
    raise AssertionError(f"no process is {pattern}: {commands}")


def together(owner, method, own, signs):
    """For `before`: the command calls a method once all commands that do so are about to. own, signs: files that say so."""
    kind = pkgutil.resolve_name(owner)
    plain = getattr(kind, method)

    def waiting(*arguments, **options):
        own.touch()
        while not all(sign.exists() for sign in signs):
            time.sleep(0.001)
        return plain(*arguments, **options)

    setattr(kind, method, waiting)
