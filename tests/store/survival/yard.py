"""Writers that can be killed by the hundred: a process that has loaded everything forks one for each line that it reads.

    {"scene": ..., "path": ..., "root": ..., "die": [number, "before" or "after"]}    or    {"cli": [arguments]}

It answers with the writer's process number, and to the line `wait`, once it has ended, with its status: until then the
number belongs to nobody else. `die`: the writer kills itself with
SIGKILL around that step below `root`. What a writer prints goes nowhere.
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
from pathlib import Path

from steps import Observer, watched

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds; a writer that takes longer hangs, and says where


class Yard:
    """A context manager; one writer at a time. cli: load what `tosca extract` needs, too."""

    def __init__(self, cli=False):
        self.log = Path(tempfile.mkdtemp()) / "log"
        command = [sys.executable, str(HERE / "yard.py"), str(self.log), *(["cli"] if cli else [])]
        paths = [str(HERE), str(HERE.parent), str(HERE.parents[2])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def start(self, **job):
        """Forks a writer; returns its process number."""
        self.process.stdin.write(json.dumps(job, default=str) + "\n")
        self.process.stdin.flush()
        self.writer = int(self.process.stdout.readline())
        return self.writer

    def wait(self):
        """How it ended: 0, or minus the signal that killed it."""
        self.process.stdin.write("wait\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            os.kill(self.writer, signal.SIGKILL)
            raise TimeoutError(f"a writer hangs: {self.log.read_text()}")
        return os.waitstatus_to_exitcode(int(self.process.stdout.readline()))

    def run(self, **job):
        """Starts a writer and waits for its end."""
        self.start(**job)
        return self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
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
    from scenes import SCENES, without_threads

    os.fsync = lambda descriptor: None  # what a killed process has written stays written
    without_threads()
    if "die" in job:
        with watched(job["root"], Death(*job["die"])):
            SCENES[job["scene"]].make(Path(job["path"]))
    else:
        SCENES[job["scene"]].make(Path(job["path"]))


def _serve():
    for line in sys.stdin:
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
        sys.stdin.readline()
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
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
