"""`tosca extract` over several workers as a user meets it: --part and --join, --jobs on loky, Dask and Ray, and kill -9."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from tosca_cache.cli.app import app
from tosca_cache.store import list_stores, open_store
from tosca_cache.torchvision_compat import ensure_torchvision

LAUNCHER = str(Path(__file__).parents[2] / "cli.py")
PARTS = 2


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Digits through a tiny model of timm with random weights."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    model = ["--backbone", "test_vit", "--weights", str(path), "--img-size", "32"]
    return ["extract", "--dataset", "digits", *model, "--views", "2", "--batch-size", "24"]


@pytest.fixture(scope="module")
def alone(arguments, tmp_path_factory):
    """The files that one worker makes."""
    root = tmp_path_factory.mktemp("alone")
    assert start(arguments, root).wait() == 0
    return files(root)


def start(arguments, root, *more, **how):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | how
    return subprocess.Popen([sys.executable, LAUNCHER, *arguments, "--root", str(root), *more], text=True, **quiet)


def files(root):
    """Every file below a root with its bytes, but for those that say when and by whom a store was made."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name != "provenance.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def run(arguments, root, *more):
    result = CliRunner().invoke(app, [*arguments, "--root", str(root), *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--part", "0/4"], ["--part", "i from 1 to n"]),
        (["--part", "5/4"], ["--part", "i from 1 to n"]),
        (["--part", "x"], ["--part", "i from 1 to n"]),
        (["--part", "1/2", "--join"], ["--part cannot be combined with --join"]),
        (["--part", "1/2", "--jobs", "2"], ["--part cannot be combined with --jobs"]),
        (["--join", "--backend", "dask"], ["--join cannot be combined with --backend"]),
        (["--part", "1/2", "--restart"], ["--restart", "other parts have done"]),
        (["--join", "--restart"], ["--restart"]),
        (["--jobs", "0"], ["--jobs"]),
        (["--jobs", "2", "--backend", "slurm"], ["--backend", "loky, dask, ray"]),
        (["--jobs", "2", "--scheduler", "tcp://here:8786"], ["--scheduler", "--backend dask"]),
    ],
)
def test_requests_that_cannot_be(arguments, tmp_path, more, words):
    result = run(arguments, tmp_path, *more)
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words)
    assert not list_stores(tmp_path)


def test_parts_say_what_is_done_and_what_to_do_next(arguments, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    early = run(arguments, tmp_path, "--join")
    assert early.exit_code == 1 and "no part of this store has been begun" in early.stderr
    first = run(arguments, tmp_path, "--part", "2/2")
    assert "part 2/2 is done; of the whole store 4 of 8 shards" in first.stdout
    assert "parts: 1 not begun, 1 done" in run(["cache", "ls"], tmp_path).stdout
    refused = run(arguments, tmp_path, "--join")
    assert refused.exit_code == 1 and "part 1/2: 4 of 4 shards are missing" in refused.stderr
    (command,) = (line.strip() for line in refused.stderr.splitlines() if "--part 1/2" in line)
    last = CliRunner().invoke(app, shlex.split(command)[1:])  # as it was said, without `tosca`
    (line,) = (line for line in last.stdout.splitlines() if line.startswith("finish it: tosca "))
    joined = CliRunner().invoke(app, shlex.split(line.removeprefix("finish it: tosca ")))
    assert joined.exit_code == 0 and joined.stdout.startswith("store: ")
    assert files(tmp_path) == alone
    for more in (["--part", "1/2"], ["--join"], ["--jobs", "2"], []):
        again = run(arguments, tmp_path, *more)
        assert again.exit_code == 0 and "finished already" in again.stdout and "store: " in again.stdout


def test_killed_parts_go_on_and_join_to_the_same_store(arguments, alone, tmp_path):
    """kill -9 of real processes that begin the store at the same time; tests/store does this over and over."""
    running = [start(arguments, tmp_path, "--part", f"{index}/{PARTS}") for index in range(1, PARTS + 1)]
    wait_for_more(running, tmp_path, 0)
    killed = 0
    for process in running:
        time.sleep(random.Random(0).uniform(0, 0.05))
        killed += process.poll() is None
        process.kill()
        process.wait()
    (summary,) = list_stores(tmp_path)
    assert killed > 0 and summary.done_rows > 0
    for index in range(1, PARTS + 1):
        assert run(arguments, tmp_path, "--part", f"{index}/{PARTS}").exit_code == 0
    assert run(arguments, tmp_path, "--join").exit_code == 0
    assert files(tmp_path) == alone


@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_jobs_make_the_same_store_though_a_worker_is_killed(arguments, alone, tmp_path, backend):
    module = {"dask": "distributed", "ray": "ray"}.get(backend)
    if module is not None and find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    process = start(arguments, tmp_path, "--jobs", "2", "--backend", backend, stderr=subprocess.PIPE)
    victim = wait_for_worker(process, tmp_path)
    os.kill(victim, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "2 jobs" in said and backend in said and "Traceback" not in said
    assert files(tmp_path) == alone
    (store,) = list_stores(tmp_path)
    last = open_store(store.path).provenance["last_run"]
    assert (last["jobs"], last["backend"], last["images"]) == (2, backend, 1797)


def test_a_killed_command_goes_on_with_what_its_workers_have_done(arguments, alone, tmp_path):
    process = start(arguments, tmp_path, "--jobs", "2")
    wait_for_more([process], tmp_path, 0)
    process.kill()
    process.wait()
    wait_until_free(tmp_path)
    (summary,) = list_stores(tmp_path)
    assert summary.done_rows > 0
    result = run(arguments, tmp_path, "--jobs", "1")
    assert result.exit_code == 0 and "images are done already" in result.stderr
    assert files(tmp_path) == alone


def wait_for_more(processes, root, done):
    """Until more rows are done, or no process is left that could do them."""
    while any(process.poll() is None for process in processes):
        if sum(store.done_rows for store in list_stores(root) if store.state == "unfinished") > done:
            return
        time.sleep(0.01)


def wait_for_worker(process, root):
    """The process that is writing a part, once one does; it says so in its lock's file."""
    while process.poll() is None:
        for path in root.glob(".*.part-*.lock"):
            try:
                pid = int(json.loads(path.read_text())["pid"])
            except (OSError, ValueError):
                continue
            if ".part-0-" not in path.name and pid != process.pid:
                return pid
        time.sleep(0.002)
    raise AssertionError(f"it ended without workers: {process.stderr.read()}")


def wait_until_free(root):
    """Until the workers of a killed process have ended, too."""
    holders = {json.loads(path.read_text() or '{"pid": 0}')["pid"] for path in root.glob(".*.part-*.lock")}
    while any(Path(f"/proc/{pid}").exists() for pid in holders - {0}):
        time.sleep(0.05)
