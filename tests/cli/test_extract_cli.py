"""`tosca extract` and `tosca datasets` as a user meets them: messages, exit codes, and kill -9."""

import json
import random
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from campaign import times
from commands import Command, after_shards, tosca
from PIL import Image

from tosca_cache.extract.request import default_backbone, default_normalisation
from tosca_cache.store import list_stores, open_store


@pytest.fixture
def folder(tmp_path):
    """2 classes of 3 images in train and in test."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.full((20, 20, 3), 40 * number, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{number}.png")
    return tmp_path / "set"


@pytest.fixture
def run(tiny, tmp_path):
    """Runs `tosca extract` on the tiny model with some more arguments."""

    return partial(tosca, "extract", *tiny, "--views", "2", "--root", tmp_path / "cache")


def stores(tmp_path):
    return list_stores(tmp_path / "cache")


def test_says_where_the_store_is_and_that_it_was_there(run, folder, tmp_path):
    result = run("--dataset", folder, code=0)
    path = Path(result.stdout.strip().removeprefix("store: "))
    assert open_store(path).features("train").shape == (6, 3, 64)
    again = run("--dataset", folder, code=0)
    assert "finished already" in again.stdout and str(path) in again.stdout


def test_options_reach_the_fingerprint(run, folder, tmp_path):
    options = ["--normalize", "none", "--store-dtype", "float32", "--precision", "fp32", "--seed", 3, "--test-views", 1]
    run("--dataset", folder, *options, code=0)
    (summary,) = stores(tmp_path)
    flat = summary.spec.flat()
    assert flat["transform.normalize"] == "none" and flat["transform.mean"] == [0.0, 0.0, 0.0]
    assert (flat["dtype"], flat["precision"]) == ("float32", "fp32")
    assert (flat["views.seed"], flat["views.count"], flat["views.test_count"]) == (3, 2, 1)


def test_defaults_go_with_the_dataset(tmp_path):
    assert default_backbone("digits") == default_backbone("digits-domains") == default_backbone("glyphs") == "vit_nano"
    assert default_backbone("cub") == default_backbone(str(tmp_path)) == "vit_base_patch16_224_in21k"
    assert default_normalisation("cub", "vit_base_patch16_224_in21k") == "none"
    assert default_normalisation("cifar224", "vit_base_patch16_224") == "none"
    assert default_normalisation("cub", "vit_small_patch14_dinov2") == "timm"
    assert default_normalisation("digits", "vit_nano") == "timm"
    assert default_normalisation(str(tmp_path), "vit_base_patch16_224_in21k") == "timm"


def test_skipped_images_are_printed(run, folder):
    (folder / "train" / "a" / "1.png").write_bytes(b"")
    failed = run("--dataset", folder, code=1)
    assert str(folder / "train" / "a" / "1.png") in failed.stderr
    result = run("--dataset", folder, "--on-error", "skip", code=0)
    assert "train/a/1.png" in result.stdout


def test_ctrl_c_says_how_to_go_on(run, folder, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tosca_cache.extract.request.extract", interrupted)
    result = run("--dataset", folder, code=130)
    assert "run the same command again" in result.stderr


def test_datasets_are_listed(tmp_path):
    result = tosca("datasets", "--data-root", tmp_path, "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert set(rows) == {
        *("cifar100", "cub", "imageneta", "imagenetr", "omnibenchmark", "vtab", "objectnet"),
        *("digits", "digits-domains", "glyphs"),
    }
    assert rows["digits"]["status"] == "embedded"
    assert rows["vtab"]["status"] == "missing" and rows["vtab"]["folder"] == str(tmp_path / "vtab-cil" / "vtab")
    table = tosca("datasets", "--data-root", tmp_path, columns=200)
    for word in ("omnibenchmark", "89697", "missing", "tosca fetch"):
        assert word in table.stdout


@pytest.mark.campaign
def test_killed_again_and_again_the_store_is_the_same(tiny_digits, undisturbed, files, tmp_path):
    """kill -9 of a real process: when it has published more than the one before, and then at any moment."""
    moments, done = random.Random(1), 0
    for shards in (1, 2):
        command = Command(*tiny_digits, "--root", tmp_path, before=after_shards(shards))
        command.wait_until(lambda before=done: done_rows(tmp_path) > before)
        assert command.kill() == -signal.SIGKILL
        done = done_rows(tmp_path)
    for _ in range(times(1, 20)):
        command = Command(*tiny_digits, "--root", tmp_path, before=after_shards(2))
        time.sleep(moments.uniform(0, 1.5))
        command.kill()
    tosca(*tiny_digits, "--root", tmp_path, code=0)
    assert files(tmp_path) == undisturbed


def done_rows(root):
    return sum(store.done_rows for store in list_stores(root) if store.state == "unfinished")
