"""`tosca extract` on folders as they are found: what it says of them, and what its options change."""

import json
import shutil

import numpy as np
import pytest
from commands import tosca
from disk_waits import without_waiting
from PIL import Image

from tosca_cache.cli.extract import DEFAULT_MAX_PIXELS
from tosca_cache.datasets.decoding import MAX_PIXELS
from tosca_cache.store import list_stores


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """2 classes of 3 different images in train and in test; the working directory is its parent."""
    monkeypatch.chdir(tmp_path)
    without_waiting(monkeypatch)
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{number}.png")
    return tmp_path / "set"


@pytest.fixture
def run(tiny_weights, folder):
    """Runs `tosca extract` on the tiny model with some more arguments."""

    def invoke(*arguments):
        tiny = ["--backbone", "test_vit", "--weights", str(tiny_weights), "--img-size", "32", "--views", "1"]
        return tosca("extract", *tiny, *arguments)

    return invoke


def only_store():
    (summary,) = list_stores("cache")
    return summary


def test_what_is_left_out_is_one_line(run, folder):
    for name in ("1.heic", "2.heic", "notes\x1b.txt"):
        (folder / "train" / "a" / name).write_bytes(b"no image")
    (folder / "train" / "b" / "loop").symlink_to("..")
    result = run("--dataset", "set")
    assert result.exit_code == 0 and only_store().rows == {"train": 6, "test": 6}
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("left out: "))
    assert ".heic files: 2 (train/a/1.heic, ...)" in line
    assert r".txt files: 1 (train/a/notes\u001b.txt)" in line and "links to folders: 1 (train/b/loop)" in line
    info = json.loads(tosca("cache", "info", "set--", "--json").stdout)
    assert info["left_out"][".heic files"] == {"count": 2, "paths": ["train/a/1.heic", "train/a/2.heic"]}


def test_duplicates_are_said_dropped_or_refused(run, folder):
    shutil.copy(folder / "train" / "a" / "0.png", folder / "test" / "a" / "copy.png")
    shutil.copy(folder / "train" / "a" / "1.png", folder / "train" / "b" / "copy.png")
    refused = run("--dataset", "set", "--duplicates", "fail")
    assert refused.exit_code == 1 and not list_stores("cache")
    kept, dropped = run("--dataset", "set"), run("--dataset", "set", "--duplicates", "drop")
    for result in (refused, kept):
        assert "test images that are also in train: 1 (test/a/copy.png = train/a/0.png)" in result.stderr
        assert "images that stand in several classes: 1 (train/a/1.png = train/b/copy.png)" in result.stderr
    assert "train images that are also in test: 1 (train/a/0.png)" in dropped.stderr
    assert sorted(store.rows["train"] for store in list_stores("cache")) == [4, 7]


def test_an_ordinary_folder_needs_no_words(run):
    result = run("--dataset", "set")
    assert result.exit_code == 0 and "left out" not in result.stderr and "duplicates" not in result.stderr


def test_options_reach_the_fingerprint(run):
    assert run("--dataset", "set", "--orientation", "stored", "--background", "black").exit_code == 0
    transform = only_store().spec.transform
    assert (transform["orientation"], transform["background"], transform["depth"]) == ("stored", "#000000", "scaled")


AS_BEFORE = ("--orientation", "stored", "--background", "none", "--depth", "clipped")


def test_a_store_made_before_says_how(run):
    """One whose fingerprint does not say how images were decoded, as all were made before there was a choice."""
    assert run("--dataset", "set", *AS_BEFORE).exit_code == 0
    assert not {"orientation", "background", "depth"} & only_store().spec.transform.keys()
    info = json.loads(tosca("cache", "info", "set--", "--json").stdout)
    assert info["decoding"] == {"orientation": "stored", "background": "none", "depth": "clipped"}


def test_a_list_is_a_dataset(run, folder):
    files = sorted(path.relative_to(folder.parent) for path in folder.rglob("*.png"))
    lines = [f"{path.as_posix()},{path.parts[2]},{path.parts[1]}" for path in files]
    (folder.parent / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    assert run("--dataset", "list.csv").exit_code == 0
    assert only_store().spec.dataset["name"] == "list.csv" and only_store().rows == {"train": 6, "test": 6}
    tosca("cache", "verify", only_store().path, "--recompute", 3, code=0)
    (folder.parent / "list.csv").write_text("path,label,split\nset/train/a/9.png,a,train\n")
    broken = run("--dataset", "list.csv")
    assert broken.exit_code == 1 and "line 2 of the list" in broken.stderr and "list.csv:2" in broken.stderr


def test_skipped_images_can_be_tried_again(run, folder):
    Image.new("1", (200, 300)).save(folder / "train" / "a" / "large.png")
    limited = ("--dataset", "set", "--max-pixels", "10000")
    failed = run(*limited)
    assert failed.exit_code == 1 and "large.png" in failed.stderr and "--max-pixels" in failed.stderr
    result = run(*limited, "--on-error", "skip", "--restart")
    assert result.exit_code == 0 and "train/a/large.png" in result.stdout and "cache rm" not in result.stdout
    assert f"tosca cache rm {only_store().path.name}" in run("--dataset", "set").stdout


def test_the_limit_in_the_help_is_the_limit():
    assert DEFAULT_MAX_PIXELS == MAX_PIXELS
