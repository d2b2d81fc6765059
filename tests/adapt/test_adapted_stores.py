"""From an adapted backbone to tables: its stores, the streams over them, what names them, and models that see photos."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from adapt.conftest import STREAM
from commands import tosca

from tosca_cache import api
from tosca_cache.errors import FingerprintMismatch
from tosca_cache.store import list_stores, open_store

ROOT = Path(__file__).parents[2]
KIND = "adapted backbone (adapter)"


@pytest.fixture(scope="module")
def three(stores):
    """The frozen, the adapted and the double store."""
    found = {summary.spec.features: open_store(summary.path) for summary in list_stores(stores)}
    return [found[name] for name in ("frozen", KIND, "adapted backbone (adapter, frozen features beside)")]


def test_the_fingerprint_says_what_was_adapted_and_side_by_side_are_the_features_of_both(three, adapted):
    frozen, own, both = (store.spec for store in three)
    card, said = json.loads((adapted / "card.json").read_text()), own.backbone["adapted"]
    assert said["base_digest"] == frozen.backbone["weights_digest"] and said["digest"] == card["digest"]
    assert said["parts_digest"] == card["parts_digest"] and said["first_task"] == card["first_task"]["classes"]
    assert "adapted" not in frozen.backbone and len({s.backbone["weights_digest"] for s in (frozen, own, both)}) == 3
    assert both.backbone["dim"] == 2 * own.backbone["dim"]
    frozen, own, both = (store.features("train") for store in three)
    np.testing.assert_allclose(both, np.concatenate((frozen, own), -1), rtol=1e-4, atol=1e-4)
    assert np.abs(frozen - own).max() > 1e-3


def test_a_stream_has_the_first_task_that_was_adapted_on(three):
    for store in three[1:]:
        assert len(api.task_stream(store, increment=2, seed=1)) == 3
        first = list(store.spec.first_task)
        rest = [name for name in store.class_names if name not in first]
        api.task_stream(store, task_sizes=[2, 4], class_order=[*reversed(first), *rest])
        for other in ({"increment": 2, "seed": 2}, {"increment": 2, "init_cls": 3}, {"increment": 1}):
            with pytest.raises(FingerprintMismatch, match="adapted on a first task of 2 classes"):
                api.task_stream(store, **{"seed": 1} | other)
    api.task_stream(three[0], increment=2, seed=2)


def test_tables_keep_frozen_and_adapted_apart(stores, three, patterns, tmp_path):
    frozen, own, _ = three
    asked = ("--method", "nmc", "--runs", tmp_path / "runs", *STREAM)
    done = tosca("train", "--store", own.path, *asked, code=0)
    assert f"features: {KIND}, first task of 2 classes" in done.output
    assert re.search(rf"3 tasks, {re.escape(KIND)}", " ".join(done.output.split()))
    tosca("train", "--store", frozen.path, *asked, code=0)
    listed = json.loads(tosca("show", "--runs", tmp_path / "runs", "--json", code=0).stdout)
    assert sorted(run["features"] for run in listed) == [KIND, "frozen"]
    for store, marked in ((own, True), (frozen, False)):
        words = ("--methods", "nmc", "--seeds", "1,", "--increment", 2, "--ledger", tmp_path / f"{marked}.sqlite")
        table = tosca("compare", "--store", store.path, *words, code=0)
        assert (KIND in table.output) == marked
    assert any(KIND in path.read_text() for path in (tmp_path / "runs").rglob("report.html"))
    refused = tosca("train", "--store", own.path, *asked[:-1], 5, code=1)
    assert "the stream's first task is another one" in refused.output and "do:" in refused.output


def test_the_backbones_name_chooses_the_store(stores, three, adapted, tmp_path):
    asked = ("train", "--dataset", "patterns", "--root", stores, "--method", "nmc", "--runs", tmp_path, *STREAM)
    found = tosca(*asked, "--backbone", "vit_nano", code=0)
    assert str(three[0].path) in found.output
    several = tosca(*asked, "--backbone", adapted, code=1)  # with and without the frozen features
    assert "2 stores" in several.output and str(three[0].path) not in several.output
    assert "stores of patterns fit" in tosca(*asked, code=1).output


def test_extracting_again_and_verifying(stores, three, adapted, patterns):
    own = three[1]
    asked = ("extract", "--dataset", patterns, "--root", stores, "--views", 1, "--store-dtype", "float32")
    assert "finished already" in tosca(*asked, "--backbone", adapted, code=0).output
    tosca("cache", "verify", own.path, "--recompute", 3, code=0)
    assert "no adapted backbone" in tosca(*asked, "--backbone", "vit_nano", "--with-base", code=2).output
    assert "--img-size" in tosca(*asked, "--backbone", adapted, "--img-size", 64, code=2).output
    assert "--normalize" in tosca(*asked, "--backbone", adapted, "--normalize", "none", code=2).output
    digits = tosca("extract", "--dataset", "digits", "--root", stores, "--backbone", adapted, code=2)
    assert "which digits has not" in digits.output


def test_a_model_of_adapted_features_sees_photos(three, patterns, tmp_path):
    own = three[1]
    tosca("learn", tmp_path / "model", "--store", own.path, "--method", "nmc", code=0)
    photos = sorted((patterns / "train").rglob("0.png"))
    asked = tosca("predict", tmp_path / "model", *photos, "--json", code=0).stdout.splitlines()
    stored = tosca("predict", tmp_path / "model", "--features", own.path, "--json", code=0).stdout.splitlines()
    labels = {one["path"]: one["label"] for one in map(json.loads, stored)}
    found = {f"train/{Path(one['path']).relative_to(patterns)}": one["label"] for one in map(json.loads, asked)}
    assert len(found) == 6 and found.items() <= labels.items()


@pytest.mark.long
def test_the_gpu_script_runs_without_a_gpu(tmp_path):
    command = [ROOT / "benchmarks" / "gpu_adapt.sh", "--small", "--out", tmp_path / "out", "--work", tmp_path / "work"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads((tmp_path / "out" / "digits.json").read_text())["seeds"]["1993"]["accuracy"]
    assert set(found) == {"frozen", "adapted", "frozen and adapted"}
    assert all(50 < found[kind]["ranpac"]["last_accuracy"] <= 100 for kind in found)
