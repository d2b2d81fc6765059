"""Processes that can be killed by the hundred: one that has loaded everything forks one for each line that it reads.

    {"scene": ..., "path": ..., "root": ..., "die": [number, "before" or "after"]}
    {"deed": ..., "with": [...]}    or    {"cli": [arguments]}

It answers with the fork's process number, and to the line `wait NUMBER`, once it has ended, with its status: until then the
number belongs to nobody else. `die`: the fork kills itself with SIGKILL around that step below `root`. deed: a function of
deeds.py, and what it is given; a deed that may die so, too, comes with `root` and `die`. What a fork prints goes nowhere.
"""

import faulthandler
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from steps import Observer, watched

HERE = Path(__file__).parent
PATIENCE = 300.0  # seconds; a fork that takes longer hangs, and says where


class Yard:
    """A context manager. cli: load what `tosca extract` needs, too."""

    def __init__(self, cli=False):
        self.log = Path(tempfile.mkdtemp()) / "log"
        self.running = set()
        command = [sys.executable, str(HERE / "yard.py"), str(self.log), *(["cli"] if cli else [])]
        paths = [str(HERE), str(HERE / "survival"), str(HERE.parent), str(HERE.parents[1])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def start(self, **job):
        """Forks; returns the fork's process number."""
        self.process.stdin.write(json.dumps(job, default=str) + "\n")
        self.process.stdin.flush()
        self.latest = int(self.process.stdout.readline())
        self.running.add(self.latest)
        return self.latest

    def wait(self, pid=None):
        """How a fork, by default the latest, ended: 0, or minus the signal that killed it."""
        pid = pid or self.latest
        self.process.stdin.write(f"wait {pid}\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"a fork hangs: {self.log.read_text()}")
        self.running.discard(pid)
        return os.waitstatus_to_exitcode(int(self.process.stdout.readline()))

    def kill(self, pid=None):
        """Kills a fork, and waits for its end."""
        os.kill(pid or self.latest, signal.SIGKILL)
        return self.wait(pid)

    def run(self, **job):
        """Forks, and waits for the end."""
        self.start(**job)
        return self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for pid in self.running:  # of a test that has failed; nobody has waited for it, so the number is still its own
            os.kill(pid, signal.SIGKILL)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        shutil.rmtree(self.log.parent)


class Death(Observer):
    """Kills this process around one step."""

    def __init__(self, number, when):
        self.left = number
        self.when = when

    def before(self, step):
        if self.left == 0 and self.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, step):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def _work(job):
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    faulthandler.dump_traceback_later(PATIENCE - 10, file=log)
    if "cli" in job:
        from tosca_cache.cli import main

        sys.argv = ["tosca", *job["cli"]]
        main()
        return
    import deeds
    from scenes import SCENES, without_threads

    os.fsync = lambda descriptor: None  # what a killed process has written stays written
    without_threads()
    with watched(job["root"], Death(*job["die"])) if "die" in job else nullcontext():
        if "deed" in job:
            getattr(deeds, job["deed"])(*job["with"])
        else:
            SCENES[job["scene"]].make(Path(job["path"]))


def _serve():
    for line in sys.stdin:
        if line.startswith("wait "):
            print(os.waitpid(int(line.removeprefix("wait ")), 0)[1], flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _work(json.loads(line))
                status = 0
            except SystemExit as ended:
                status = ended.code or 0
            finally:
                os._exit(status)
        print(pid, flush=True)


if __name__ == "__main__":
    import deeds  # noqa: F401
    import scenes  # noqa: F401

    if sys.argv[2:] == ["cli"]:
        import torch

        from tosca_cache.torchvision_compat import ensure_torchvision

        ensure_torchvision()
        import timm  # noqa: F401

        import tosca_cache.cli.extract
        import tosca_cache.extract.request  # noqa: F401

        torch.set_num_threads(1)
    _serve()
