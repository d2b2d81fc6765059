"""What several rooms' tests share: small task streams, a store of the digits, and where the shared material lies."""

import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from campaign import times
from hypothesis import is_hypothesis_test, settings
from reference.gaussian import make_arrays

from tosca_cache.tasks import TaskStream

# The same examples every time, however slow the machine is; TOSCA_TEST_RANDOM=1 tries new ones.
settings.register_profile(
    "same", derandomize=not os.environ.get("TOSCA_TEST_RANDOM"), deadline=None, max_examples=times(30, 500)
)
settings.load_profile("same")


# The slowest tests: they begin first, so that no process waits for one of them at the end.
SLOW = ("test_wheel.py", "test_grocery.py", "test_stacked.py", "test_torchvision_compat.py", "test_engines.py")


def pytest_collection_modifyitems(items):
    """Every law is a campaign: see `campaign`."""
    items.sort(key=lambda item: item.path.name not in SLOW)
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.campaign)


# What the tests inherit makes no difference: `nohup`, a shell's `&` and some CI runners ignore signals for their children,
# and a umask or a variable of one's own would reach every command that a test starts.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
os.umask(0o022)
for name in [name for name in os.environ if name.startswith(("TOSCA_", "AWS_")) and not name.startswith("TOSCA_TEST_")]:
    del os.environ[name]
for name in ("NO_PROXY", "no_proxy"):  # servers of the tests are on this machine
    os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
# Nor does the terminal that they are started from: rich and typer ask these whether to write in colour, and how wide.
COLOURS = ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "CLICOLOR", "CLICOLOR_FORCE", "GITHUB_ACTIONS")
for name in (*COLOURS, "OMP_NUM_THREADS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TERMINAL_WIDTH", "JUPYTER_COLUMNS"):
    os.environ.pop(name, None)

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def benchmark_script(monkeypatch):
    """Imports a script of benchmarks/ by its name, as it is imported where it lies."""

    def load(name):
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material beside the project; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared material at {SHARED}")
    return SHARED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
    return (yield from _compiler())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    return (yield from _compiler())


def _compiler():
    """What asks for the compiled kernels by name is skipped where there is no compiler."""
    from tosca_cache.train.native.library import CannotCompileError

    try:
        return (yield)
    except CannotCompileError as error:
        if "there is no C++ compiler" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Makes a folder that all processes of this run of the tests share: (name, make) -> folder.

    The first that asks calls `make(folder)`; the others wait for it. What lies in it is never written to.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own

    def once(name, make):
        folder = shared / name
        with (shared / f"{name}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            if lock.read() != "made":
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                lock.write("made")
                lock.flush()
        return folder

    return once


@pytest.fixture(scope="session")
def digits_cache(made_once):
    """The folder with a store of the digits, 1 view."""
    from commands import tosca

    asked = ("extract", "--dataset", "digits", "--views", "1", "--root")
    return made_once("digits-cache", lambda folder: tosca(*asked, folder, code=0))


@pytest.fixture
def digits_place(digits_cache, tmp_path, monkeypatch):
    """An empty working directory; the store of the digits is found by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOSCA_CACHE", str(digits_cache))
    return tmp_path


@pytest.fixture(scope="session")
def tiny_weights(made_once):
    """A file of random weights of timm's test_vit, of 64 features."""

    def make(folder):
        import torch
        from safetensors.torch import save_file

        from tosca_cache.torchvision_compat import ensure_torchvision

        ensure_torchvision()
        import timm

        torch.manual_seed(0)
        save_file(timm.create_model("test_vit", num_classes=0).state_dict(), folder / "tiny.safetensors")

    return made_once("tiny-weights", make) / "tiny.safetensors"


@pytest.fixture(scope="session")
def make_stream():
    """Builds a stream of Gaussian classes: (classes, dim, views, increment, init_cls, seed, noise) -> TaskStream."""

    def make(classes=9, dim=12, views=4, increment=3, init_cls=None, seed=1, noise=1.0, shuffle=True):
        generator = np.random.default_rng(seed)
        means = 2 * generator.normal(size=(classes, dim))
        train = make_arrays(generator, generator.integers(4, 12, classes), dim, views, means, noise)
        test = make_arrays(generator, generator.integers(2, 6, classes), dim, 1, means, noise)
        names = [f"class {c}" for c in range(classes)]
        tasks = {"increment": increment, "init_cls": init_cls, "seed": seed, "shuffle": shuffle}
        return TaskStream(train, test, class_names=names, **tasks)

    return make


@pytest.fixture(scope="session")
def make_store():
    """Writes a real store of Gaussian classes: (path, classes, dim, views, spec fields...) -> Store."""
    from tosca_cache.store import StoreSpec, StoreWriter

    def make(
        path,
        *,
        dataset="shapes",
        classes=6,
        dim=12,
        views=3,
        test_views=0,
        backbone="toy",
        normalize="timm",
        seed=2,
        noise=1.0,
        first_task=None,
    ):
        generator = np.random.default_rng(seed)
        means = 2 * generator.normal(size=(classes, dim))
        adapted = {"digest": "2" * 64, "base_digest": "1" * 64, "parts_digest": "3" * 64, "kind": "adapter"}
        of_task = {} if first_task is None else {"adapted": adapted | {"first_task": first_task, "with_base": False}}
        counts, widths = {"train": 9, "test": 5}, {"train": 1 + views, "test": 1 + test_views}
        splits = {s: make_arrays(generator, [counts[s]] * classes, dim, widths[s], means, noise) for s in counts}
        rows = {split: len(arrays.labels) for split, arrays in splits.items()}
        spec = StoreSpec(
            dataset={"name": dataset, "listing_digest": "0" * 64, "classes": classes, "splits": rows},
            backbone={"name": backbone, "tag": f"{backbone}.test", "weights_digest": "1" * 64, "dim": dim} | of_task,
            transform={"image_size": 32, "normalize": normalize},
            views={"count": views, "seed": 1993, "test_count": test_views},
            precision="fp32",
            dtype="float16",
        )
        how = {"class_names": [f"class-{c}" for c in range(classes)], "domain_names": [""]}
        writer = StoreWriter.open(path, spec, **how, numerics={"batch_size": 4})
        with writer:
            for shard in writer.pending():
                part, arrays = slice(shard.start, shard.stop), splits[shard.split]
                rows = {
                    "features": arrays.features[part],
                    "labels": arrays.labels[part],
                    "domains": np.zeros(shard.rows, dtype=np.int64),
                    "views": np.zeros((shard.rows, widths[shard.split], 6), dtype=np.int64),
                    "paths": [f"{shard.split}/{row}.png" for row in range(shard.start, shard.stop)],
                }
                writer.publish(shard, rows)
            return writer.finish({"last_run": {"seconds": 1.5}})

    return make


@pytest.fixture
def shapes_place(tmp_path, monkeypatch, make_store):
    """A folder with one store of six classes, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    make_store(tmp_path / "cache" / "shapes--toy")
    return tmp_path


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small file system of its own: (options) -> folder; skipped where that is not allowed."""
    folders = []

    def mount(options):
        folder = tmp_path / f"mount{len(folders)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"may not mount a tmpfs here: {done.stderr.decode().strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session", autouse=True)
def _eighty_columns():
    """However wide the terminal is, if there is one."""
    os.environ |= {"COLUMNS": "80", "LINES": "25"}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small operations on two threads wait for each other whenever the machine does anything else."""
    import torch

    torch.set_num_threads(1)
