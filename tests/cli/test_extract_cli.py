"""`tosca extract` and `tosca datasets` as a user meets them: messages, exit codes, and kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from tosca_cache.cli.app import app
from tosca_cache.extract.request import default_backbone, default_normalisation
from tosca_cache.store import list_stores, open_store
from tosca_cache.torchvision_compat import ensure_torchvision


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of a tiny model of timm."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    return path


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
def run(weights, tmp_path):
    """Runs `tosca extract` on the tiny model with some more arguments."""

    def invoke(*arguments):
        tiny = ["--backbone", "test_vit", "--weights", str(weights), "--img-size", "32", "--views", "2"]
        root = ["--root", str(tmp_path / "cache")]
        result = CliRunner().invoke(app, ["extract", *tiny, *root, *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


def stores(tmp_path):
    return list_stores(tmp_path / "cache")


def test_says_where_the_store_is_and_that_it_was_there(run, folder, tmp_path):
    result = run("--dataset", folder)
    assert result.exit_code == 0
    path = Path(result.stdout.strip().removeprefix("store: "))
    assert open_store(path).features("train").shape == (6, 3, 64)
    again = run("--dataset", folder)
    assert again.exit_code == 0 and "finished already" in again.stdout and str(path) in again.stdout


def test_options_reach_the_fingerprint(run, folder, tmp_path):
    options = ["--normalize", "none", "--store-dtype", "float32", "--precision", "fp32", "--seed", 3, "--test-views", 1]
    assert run("--dataset", folder, *options).exit_code == 0
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
    failed = run("--dataset", folder)
    assert failed.exit_code == 1 and str(folder / "train" / "a" / "1.png") in failed.stderr
    result = run("--dataset", folder, "--on-error", "skip")
    assert result.exit_code == 0 and "train/a/1.png" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--dataset", "digit"], 2, ["digits"]),
        (["--dataset", "./nowhere"], 1, ["./nowhere", "does not exist"]),
        (
            ["--dataset", "cub", "--data-root", "elsewhere"],
            1,
            ["elsewhere/cub", "9430", "train/CLASS", "RevisitingCIL"],
        ),
        (["--dataset", "digits", "--views", "-1"], 2, ["--views"]),
        (["--dataset", "digits", "--views", "many"], 2, ["--views"]),
        (["--dataset", "digits", "--test-fraction", "1.5"], 2, ["--test-fraction"]),
        (["--dataset", "digits", "--precision", "int4"], 2, ["--precision", "bf16"]),
        (["--dataset", "digits", "--normalize", "clip"], 2, ["--normalize", "timm"]),
        (["--dataset", "digits", "--on-error", "ask"], 2, ["--on-error"]),
        (["--dataset", "digits", "--store-dtype", "int8"], 2, ["--store-dtype"]),
        (["--dataset", "digits", "--device", "abacus"], 2, ["--device"]),
        (["--dataset", "digits", "--img-size", "0"], 2, ["--img-size"]),
        (["--dataset", "digits", "--img-size", "33"], 1, ["--img-size", "16"]),
        (["--dataset", "digits", "--backbone", "vit_unknown"], 1, ["--backbone"]),
        (["--dataset", "digits", "--weights", "nowhere.pth"], 1, ["nowhere.pth"]),
        (["--dataset", "digits", "--weights", "nowhere.bin.gz"], 1, ["nowhere.bin.gz"]),
    ],
)
def test_wrong_requests_are_one_message_with_a_remedy(run, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr
    assert not stores(tmp_path)


def test_a_root_that_is_a_file(run, folder, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    result = run("--dataset", folder)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert (tmp_path / "cache").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_that_may_not_be_written(run, folder, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    result = run("--dataset", folder)
    assert result.exit_code == 1 and "Traceback" not in result.output


def test_ctrl_c_says_how_to_go_on(run, folder, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tosca_cache.extract.request.extract", interrupted)
    result = run("--dataset", folder)
    assert result.exit_code == 130 and "run the same command again" in result.stderr


def test_datasets_are_listed(tmp_path):
    result = CliRunner().invoke(app, ["datasets", "--data-root", str(tmp_path), "--json"])
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert set(rows) == {
        *("cifar100", "cub", "imageneta", "imagenetr", "omnibenchmark", "vtab", "objectnet"),
        *("digits", "digits-domains", "glyphs"),
    }
    assert rows["digits"]["status"] == "embedded"
    assert rows["vtab"]["status"] == "missing" and rows["vtab"]["folder"] == str(tmp_path / "vtab-cil" / "vtab")
    table = CliRunner().invoke(app, ["datasets", "--data-root", str(tmp_path)], env={"COLUMNS": "200"})
    for word in ("omnibenchmark", "89697", "missing", "RevisitingCIL"):
        assert word in table.stdout


def test_killed_again_and_again_the_store_is_the_same(weights, tmp_path):
    """kill -9 of a real process, each time when it has published something more than the one before."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(weights, whole).wait() == 0
    (expected,) = list_stores(whole)
    total, done, kills = sum(expected.rows.values()), 0, 0
    while kills < 3:
        process = start(weights, killed)
        reached = wait_for_more(process, killed, done)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if reached is None:
            break
        done = reached
    assert kills >= 2 and 0 < done < total
    assert start(weights, killed).wait() == 0
    (store,) = list_stores(killed)
    assert store.state == "finished" and store.path.name == expected.path.name
    assert sorted(p.relative_to(killed) for p in killed.rglob("*")) == sorted(
        p.relative_to(whole) for p in whole.rglob("*")
    )
    for path in (p for p in expected.path.rglob("*") if p.is_file() and p.name != "provenance.json"):
        assert (store.path / path.relative_to(expected.path)).read_bytes() == path.read_bytes(), path


def start(weights, root):
    """`tosca extract` of the digits in a process of its own."""
    launcher = [sys.executable, str(Path(__file__).parents[2] / "cli.py"), "extract"]
    options = ["--dataset", "digits", "--backbone", "test_vit", "--weights", str(weights), "--img-size", "64"]
    slow = ["--views", "8", "--batch-size", "9", "--root", str(root)]
    return subprocess.Popen([*launcher, *options, *slow], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_more(process, root, done):
    """Rows published once they are more than `done`; None if the process ends first."""
    while process.poll() is None:
        now = sum(store.done_rows for store in list_stores(root) if store.state == "unfinished")
        if now > done:
            return now
        time.sleep(0.01)
    return None
