"""`tosca cache rm`, and two extractions of one store, as a user meets them."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import tosca
from PIL import Image

from tosca_cache.store import StoreWriter, list_stores, open_store, partial_path


@pytest.fixture
def root(tmp_path, make_store):
    """Two finished stores and an unfinished one."""
    for name, seed in (("shapes--a", 1), ("shapes--b", 2)):
        make_store(tmp_path / name, seed=seed)
    store = open_store(tmp_path / "shapes--a")
    how = {"class_names": store.class_names, "domain_names": [""], "numerics": {}}
    StoreWriter.open(tmp_path / "begun", store.spec, **how).close()
    return tmp_path


def run(*arguments, code=0, typed=None):
    result = tosca(*arguments, code=code, typed=typed)
    return result.stdout + result.stderr


def names(root):
    return sorted(path.name for path in root.iterdir())


def test_rm_says_what_is_lost_and_asks(root):
    said = run("cache", "rm", "shapes--a", "--root", root, typed="n\n", code=1)
    assert "84 images of shapes, 4 views a train image, toy" in said and "kB" in said and "Remove it?" in said
    assert "free on this disk" in run("cache", "ls", "--root", root)
    assert names(root) == ["begun.partial", "shapes--a", "shapes--b"]
    assert "removed" in run("cache", "rm", "shapes--a", "begun", "--root", root, typed="y\n")
    assert names(root) == ["shapes--b"]


def test_rm_by_path_and_by_the_beginning_of_one_name(root):
    run("cache", "rm", root / "shapes--a", "--yes")
    run("cache", "rm", "sha", "be", "--yes", "--root", root)
    assert names(root) == []


def test_an_ambiguous_beginning_is_refused_with_the_names(root):
    said = run("cache", "rm", "shapes", "--yes", "--root", root, code=2)
    assert "shapes--a" in said and "shapes--b" in said and len(names(root)) == 3


HOLDER = """
import sys
from pathlib import Path
from tosca_cache.store.locks import acquire_lock, registry_lock
with registry_lock(Path(sys.argv[1])):
    lock = acquire_lock(Path(sys.argv[1]), None)
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["finishes", "is killed"])
def test_wait_waits_for_another_extraction_and_goes_on(tiny, tmp_path, end):
    """The other process holds the store that this command is about to write."""
    for split in ("train", "test"):
        for label in ("ant", "bee"):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            Image.fromarray(np.full((32, 32, 3), len(label + split) * 9, dtype=np.uint8)).save(folder / "0.png")
    arguments = ["extract", "--dataset", tmp_path / "pictures", *tiny, "--views", "0", "--root"]
    whole = run(*arguments, tmp_path / "whole")
    name = Path(re.search(r"store: (.*)", whole)[1]).name
    store = tmp_path / "cache" / name
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", HOLDER, store], **pipes)
    assert other.stdout.readline() == "ready\n"
    refused = run(*arguments, tmp_path / "cache", code=1)
    assert f"process {other.pid} on" in refused and "since" in refused
    if end == "is killed":
        other.kill()
    other.communicate("end\n")
    assert "store: " in run(*arguments, tmp_path / "cache")
    assert other.returncode == (0 if end == "finishes" else -signal.SIGKILL)
    assert not partial_path(store).exists() and len(list_stores(tmp_path / "cache")) == 1
    theirs, ours = tmp_path / "whole" / name / "manifest.json", store / "manifest.json"
    assert theirs.read_bytes() == ours.read_bytes()
    assert names(tmp_path / "cache") == [name]
