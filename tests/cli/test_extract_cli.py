"""`tosca extract` as a user meets it: what is said of folders, what options change, --part, --jobs, and kill -9."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from campaign import times
from commands import Command, after_shards, loky_worker, tosca, warm_loky
from disk_waits import without_waiting
from PIL import Image
from trees import tree

from tosca_cache.cli.extract import DEFAULT_MAX_PIXELS
from tosca_cache.datasets.decoding import MAX_PIXELS
from tosca_cache.extract.request import default_backbone, default_normalisation
from tosca_cache.processes import MEMORY
from tosca_cache.store import list_stores, open_store
from tosca_cache.store.locks import Part, StoreBusy, exclusive
from tosca_cache.workers import Workers

LAUNCHER = str(Path(__file__).parents[2] / "cli.py")


@pytest.fixture
def folder(make_folder, tmp_path, monkeypatch):
    """2 classes of 3 images in train and in test; the working directory is its parent."""
    monkeypatch.chdir(tmp_path)
    without_waiting(monkeypatch)
    return make_folder(tmp_path / "set")


@pytest.fixture
def run(tiny, folder):
    """Runs `tosca extract` on the tiny model with some more arguments."""

    def invoke(*arguments, dataset="set", **how):
        return tosca("extract", "--dataset", dataset, *tiny, "--views", "1", *arguments, **how)

    return invoke


def only_store():
    (summary,) = list_stores("cache")
    return summary


def test_an_ordinary_folder_needs_few_words_and_ctrl_c_says_how_to_go_on(run, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tosca_cache.extract.pipeline.Extraction.run", interrupted)
        assert "run the same command again" in run(code=130).stderr
    result = run(code=0)
    path = Path(result.stdout.strip().removeprefix("store: "))
    assert open_store(path).features("train").shape == (6, 2, 64)
    assert "left out" not in result.stderr and "duplicates" not in result.stderr
    again = run(code=0)
    assert "finished already" in again.stdout and str(path) in again.stdout


def test_options_reach_the_fingerprint_and_one_without_decoding_means_as_published(run):
    options = ["--normalize", "none", "--store-dtype", "float32", "--precision", "fp32", "--seed", 3, "--test-views", 1]
    run(*options, "--orientation", "stored", "--background", "black", code=0)
    flat = only_store().spec.flat()
    assert flat["transform.normalize"] == "none" and flat["transform.mean"] == [0.0, 0.0, 0.0]
    assert (flat["dtype"], flat["precision"]) == ("float32", "fp32")
    assert (flat["views.seed"], flat["views.count"], flat["views.test_count"]) == (3, 1, 1)
    decoding = [flat[f"transform.{key}"] for key in ("orientation", "background", "depth")]
    assert decoding == ["stored", "#000000", "scaled"]
    shutil.rmtree("cache")
    run("--orientation", "stored", "--background", "none", "--depth", "clipped", code=0)
    assert not {"orientation", "background", "depth"} & only_store().spec.transform.keys()
    info = json.loads(tosca("cache", "info", "set--", "--json").stdout)
    assert info["decoding"] == {"orientation": "stored", "background": "none", "depth": "clipped"}


def test_what_is_left_out_and_what_is_there_twice_is_a_line_each(run, folder):
    for name in ("1.heic", "2.heic", "notes\x1b.txt"):
        (folder / "train" / "a" / name).write_bytes(b"no image")
    (folder / "train" / "b" / "loop").symlink_to("..")
    shutil.copy(folder / "train" / "a" / "0.png", folder / "test" / "a" / "copy.png")
    shutil.copy(folder / "train" / "a" / "1.png", folder / "train" / "b" / "copy.png")
    refused = run("--duplicates", "fail", code=1)
    assert not list_stores("cache")
    kept = run(code=0)
    for result in (refused, kept):
        assert "test images that are also in train: 1 (test/a/copy.png = train/a/0.png)" in result.stderr
        assert "images that stand in several classes: 1 (train/a/1.png = train/b/copy.png)" in result.stderr
    (line,) = (line for line in kept.stderr.splitlines() if line.startswith("left out: "))
    assert ".heic files: 2 (train/a/1.heic, ...)" in line
    assert r".txt files: 1 (train/a/notes\u001b.txt)" in line and "links to folders: 1 (train/b/loop)" in line
    info = json.loads(tosca("cache", "info", "set--", "--json").stdout)
    assert info["left_out"][".heic files"] == {"count": 2, "paths": ["train/a/1.heic", "train/a/2.heic"]}
    assert "train images that are also in test: 1 (train/a/0.png)" in run("--duplicates", "drop", code=0).stderr
    assert sorted(store.rows["train"] for store in list_stores("cache")) == [4, 7]


def test_a_list_is_a_dataset(run, folder):
    files = sorted(path.relative_to(folder.parent) for path in folder.rglob("*.png"))
    lines = [f"{path.as_posix()},{path.parts[2]},{path.parts[1]}" for path in files]
    (folder.parent / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    run(dataset="list.csv", code=0)
    assert only_store().spec.dataset["name"] == "list.csv" and only_store().rows == {"train": 6, "test": 6}
    tosca("cache", "verify", only_store().path, "--recompute", 3, code=0)


def test_skipped_images_are_printed_and_can_be_tried_again(run, folder):
    Image.new("1", (200, 300)).save(folder / "train" / "a" / "0.png")
    limited = ("--max-pixels", "10000")
    failed = run(*limited, code=1).stderr
    assert "0.png" in failed and "--max-pixels" in failed
    (folder / "train" / "a" / "1.png").write_bytes(b"")
    result = run(*limited, "--on-error", "skip", "--restart", code=0)
    assert "train/a/0.png" in result.stdout and "train/a/1.png" in result.stdout and "rm -r" not in result.stdout
    assert f"rm -r {only_store().path}," in run(*limited, "--on-error", "skip").stdout
    assert DEFAULT_MAX_PIXELS == MAX_PIXELS, "the limit in the help is the limit"


def test_defaults_go_with_the_dataset():
    large = "vit_base_patch16_224_in21k"
    for dataset, backbone in (("digits", "vit_nano"), ("glyphs", "vit_nano"), ("cub", large), ("a/folder", large)):
        assert default_backbone(dataset) == backbone
    for dataset, backbone, normalised in (
        *(("cub", large, "none"), ("cifar224", "vit_base_patch16_224", "none"), ("digits", "vit_nano", "timm")),
        *(("cub", "vit_small_patch14_dinov2", "timm"), ("a/folder", large, "timm")),
        ("imagenette", large, "timm"),  # no benchmark of the field
    ):
        assert default_normalisation(dataset, backbone) == normalised


@pytest.mark.campaign
def test_killed_again_and_again_the_store_is_the_same(tiny_digits, undisturbed, tmp_path):
    """kill -9 of a real process: when it has published more than the one before, and then at any moment.

    While it lives its store is its own, which another command says.
    """
    moments, done = random.Random(1), 0
    for shards in (1, 2):
        command = Command(*tiny_digits, "--root", tmp_path, before=after_shards(shards))
        command.wait_until(lambda before=done: done_rows(tmp_path) > before)
        refused = tosca(*tiny_digits, "--root", tmp_path, code=1).stderr
        assert f"process {command.pid} on" in refused and "since" in refused
        assert command.kill() == -signal.SIGKILL
        done = done_rows(tmp_path)
    for _ in range(times(1, 20)):
        command = Command(*tiny_digits, "--root", tmp_path, before=after_shards(2))
        time.sleep(moments.uniform(0, 1.5))
        command.kill()
    tosca(*tiny_digits, "--root", tmp_path, code=0)
    assert tree(tmp_path) == undisturbed


def done_rows(root):
    return sum(store.done_rows for store in list_stores(root) if store.state == "unfinished")


def test_parts_say_what_is_done_and_what_to_do_next(tiny_digits, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    first = tosca(*tiny_digits, "--root", tmp_path, "--part", "2/2")
    assert "part 2/2 is done; of the whole store 4 of 8 shards" in first.stdout
    assert "unfinished: " in tosca("cache", "ls", "--root", tmp_path).stdout
    last = tosca(*tiny_digits, "--root", tmp_path, "--part", "1/2")
    assert "8 of 8 shards\nfinish it: the same command without --part" in last.stdout
    assert tosca(*tiny_digits, "--root", tmp_path, code=0).stdout.startswith("store: ")
    assert tree(tmp_path) == undisturbed
    for more in (["--part", "1/2"], ["--jobs", "2"]):
        again = tosca(*tiny_digits, "--root", tmp_path, *more, code=0).stdout
        assert "finished already" in again and "store: " in again
    for more in (["--jobs", "2"], ["--restart"]):
        assert "cannot be combined" in tosca(*tiny_digits, "--root", tmp_path, "--part", "1/2", *more, code=2).stderr


def test_no_more_threads_than_the_environment_allows(run, monkeypatch):
    monkeypatch.setattr("tosca_cache.workers.cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert " 1 workers" in run().stderr
    assert " 3 workers" in run("--root", "other", "--workers", "3").stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds a worker to kill in /proc")
def test_jobs_make_the_same_store_though_a_worker_is_killed(tiny_digits, undisturbed, tmp_path, monkeypatch):
    killed, usual = [], Workers.run

    def kill_once_a_part_is_made(self, function, *jobs):
        for result in usual(self, function, *jobs):
            if not killed:
                killed.append(loky_worker())
                os.kill(killed[0], signal.SIGKILL)
            yield result

    monkeypatch.setattr(Workers, "run", kill_once_a_part_is_made)
    with warm_loky():
        result = tosca(*tiny_digits, "--root", tmp_path, "--jobs", "2", code=0)
    assert killed and "2 jobs" in result.stderr
    assert tree(tmp_path) == undisturbed
    (store,) = list_stores(tmp_path)
    last = open_store(store.path).provenance["last_run"]
    assert (last["jobs"], last["images"]) == (2, 1797)


# Every process of Python that is started reads this: a worker stands still once it has published a shard of its part.
STANDING_STILL = """
import os, pathlib, time
if "TOSCA_TEST_HOLD" in os.environ:
    from tosca_cache.store import StoreWriter
    plain = StoreWriter.publish
    def publish(self, *arguments, **more):
        plain(self, *arguments, **more)
        pathlib.Path(os.environ["TOSCA_TEST_HOLD"], str(os.getpid())).touch()
        time.sleep(1800)
    StoreWriter.publish = publish
"""


def wait_for(condition, seconds=500):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def refused(store, part=None):
    with pytest.raises(StoreBusy) as busy, exclusive(store, part):
        pass
    return str(busy.value)


@pytest.mark.skipif(not MEMORY.is_dir(), reason="looks at processes and named semaphores as Linux has them")
@pytest.mark.parametrize("kill", [os.kill, pytest.param(os.killpg, marks=pytest.mark.long)])
def test_workers_end_with_their_command_in_the_middle_of_a_part(tiny_digits, undisturbed, tmp_path, kill):
    """The command is killed alone, or all its processes are."""
    held, root = tmp_path / "held", tmp_path / "root"
    held.mkdir()
    (tmp_path / "sitecustomize.py").write_text(STANDING_STILL)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    asked = [sys.executable, LAUNCHER, *tiny_digits, "--root", root, "--jobs", "2"]
    command = subprocess.Popen(  # loky starts no workers below a process of `commands`
        asked, env=os.environ | {"PYTHONPATH": path, "TOSCA_TEST_HOLD": str(held)}, start_new_session=True
    )
    wait_for(lambda: len(list(held.iterdir())) == 2 or command.poll() is not None)
    workers = [path.name for path in held.iterdir()]
    partial = next(path for path in root.iterdir() if path.name.endswith(".partial"))
    store = partial.with_name(partial.name.removesuffix(".partial"))
    count = int(re.search(rf"([0-9]+) parts of this store: process {command.pid} on", refused(store))[1])
    holder = re.search(r"part 1/. of this store: process ([0-9]+) on", refused(store, Part(count, 1)))
    assert holder[1] in workers
    kill(command.pid, signal.SIGKILL)
    command.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    with exclusive(store):  # every part is free
        pass
    with warm_loky():
        tosca(*tiny_digits, "--root", root, "--jobs", "2", code=0)
    assert tree(root) == undisturbed
    assert not [path.name for path in MEMORY.iterdir() if re.search(f"[-_]{command.pid}([-_]|$)", path.name)]
