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
def stores(patterns, adapted, tmp_path_factory):
    """The frozen store of the patterns, the adapted one, and the one of both side by side."""
    root = tmp_path_factory.mktemp("stores")
    asked = ("extract", "--dataset", patterns, "--root", root, "--views", 1, "--store-dtype", "float32")
    for words in (("vit_nano",), (adapted,), (adapted, "--with-base")):
        tosca(*asked, "--backbone", *words, code=0)
    found = {summary.spec.features: open_store(summary.path) for summary in list_stores(root)}
    return [found[name] for name in ("frozen", KIND, "adapted backbone (adapter, frozen features beside)")]


def test_the_fingerprint_says_what_was_adapted_and_side_by_side_are_the_features_of_both(stores, adapted):
    frozen, own, both = (store.spec.backbone for store in stores)
    card, said = json.loads((adapted / "card.json").read_text()), own["adapted"]
    assert said["base_digest"] == frozen["weights_digest"] and said["first_task"] == card["first_task"]["classes"]
    assert (said["digest"], said["parts_digest"]) == (card["digest"], card["parts_digest"])
    assert "adapted" not in frozen and len({spec["weights_digest"] for spec in (frozen, own, both)}) == 3
    frozen, own, both = (store.features("train") for store in stores)
    np.testing.assert_allclose(both, np.concatenate((frozen, own), -1), rtol=1e-4, atol=1e-4)
    assert np.abs(frozen - own).max() > 1e-3


def test_a_stream_has_the_first_task_that_was_adapted_on(stores):
    for store in stores[1:]:
        assert len(api.task_stream(store, increment=2, seed=1)) == 3
        first = list(store.spec.first_task)
        rest = [name for name in store.class_names if name not in first]
        api.task_stream(store, task_sizes=[2, 4], class_order=[*reversed(first), *rest])
        for other in ({"increment": 2, "seed": 2}, {"increment": 2, "init_cls": 3}, {"increment": 1}):
            with pytest.raises(FingerprintMismatch, match="adapted on a first task of 2 classes"):
                api.task_stream(store, **{"seed": 1} | other)
    api.task_stream(stores[0], increment=2, seed=2)


def test_tables_keep_frozen_and_adapted_apart(stores, tmp_path):
    frozen, own, _ = stores
    asked = ("--method", "nmc", "--runs", tmp_path / "runs", *STREAM)
    done = tosca("train", "--store", own.path, *asked, code=0)
    assert f"features: {KIND}, first task of 2 classes" in done.output
    assert re.search(rf"3 tasks, {re.escape(KIND)}", " ".join(done.output.split()))
    tosca("train", "--store", frozen.path, *asked, code=0)
    listed = json.loads(tosca("show", "--runs", tmp_path / "runs", "--json", code=0).stdout)
    assert sorted(run["features"] for run in listed) == [KIND, "frozen"]
    for store, marked in ((own, True), (frozen, False)):
        words = ("--methods", "nmc", "--seeds", "1,", "--increment", 2, "--ledger", tmp_path / f"{marked}.sqlite")
        assert (KIND in tosca("compare", "--store", store.path, *words, code=0).output) == marked
    assert any(KIND in path.read_text() for path in (tmp_path / "runs").rglob("report.html"))
    refused = tosca("train", "--store", own.path, *asked[:-1], 5, code=1)
    assert "the stream's first task is another one" in refused.output and "do:" in refused.output


def test_the_backbones_name_chooses_the_store(stores, adapted, tmp_path):
    frozen = stores[0].path
    asked = ("--dataset", "patterns", "--root", frozen.parent, "--method", "nmc", "--runs", tmp_path, *STREAM)
    assert str(frozen) in tosca("train", *asked, "--backbone", "vit_nano", code=0).output
    several = tosca("train", *asked, "--backbone", adapted, code=1)  # with and without the frozen features
    assert "2 stores" in several.output and str(frozen) not in several.output
    assert "stores of patterns fit" in tosca("train", *asked, code=1).output


def test_extracting_again_and_verifying(stores, adapted, patterns):
    asked = ("extract", "--root", stores[0].path.parent, "--views", 1, "--store-dtype", "float32", "--dataset")
    assert "finished already" in tosca(*asked, patterns, "--backbone", adapted, code=0).output
    tosca("cache", "verify", stores[1].path, "--recompute", 3, code=0)
    for dataset, backbone, words, said in (
        (patterns, "vit_nano", ("--with-base",), "no adapted backbone"),
        (patterns, adapted, ("--img-size", 64), "--img-size"),
        (patterns, adapted, ("--normalize", "none"), "--normalize"),
        ("digits", adapted, (), "which digits has not"),
    ):
        assert said in tosca(*asked, dataset, "--backbone", backbone, *words, code=2).output


def test_a_model_of_adapted_features_sees_photos(stores, patterns, tmp_path):
    tosca("learn", tmp_path / "model", "--store", stores[1].path, "--method", "nmc", code=0)
    photos, asked = sorted((patterns / "train").rglob("0.png")), ("predict", tmp_path / "model", "--json")
    seen = map(json.loads, tosca(*asked, *photos, code=0).stdout.splitlines())
    stored = map(json.loads, tosca(*asked, "--features", stores[1].path, code=0).stdout.splitlines())
    labels = {one["path"]: one["label"] for one in stored}
    found = {f"train/{Path(one['path']).relative_to(patterns)}": one["label"] for one in seen}
    assert len(found) == 6 and found.items() <= labels.items()


@pytest.mark.long
def test_the_gpu_script_runs_without_a_gpu(tmp_path):
    command = [ROOT / "benchmarks" / "gpu_adapt.sh", "--small", "--out", tmp_path / "out", "--work", tmp_path / "work"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads((tmp_path / "out" / "digits.json").read_text())["seeds"]["1993"]["accuracy"]
    assert set(found) == {"frozen", "adapted", "frozen and adapted"}
    assert all(50 < found[kind]["ranpac"]["last_accuracy"] <= 100 for kind in found)
