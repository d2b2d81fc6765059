"""`tosca cache verify` as a user meets it."""

import shutil
from pathlib import Path

import pytest
from commands import tosca
from trees import damage, everything

import tosca_cache
from tosca_cache.store import list_stores, open_store


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny, make_folder):
    """A folder of images, and the options that make the store of them, which is there."""
    folder = tmp_path_factory.mktemp("verify")
    asked = ["--dataset", make_folder(folder / "set"), *tiny, "--views", 1, "--precision", "fp32", "--device", "cpu"]
    asked += ["--root", folder / "cache"]
    tosca("extract", *asked, code=0)
    return folder, asked


@pytest.fixture
def store(made, tmp_path):
    (summary,) = list_stores(made[0] / "cache")
    return Path(shutil.copytree(summary.path, tmp_path / "cache" / summary.path.name))


def test_a_good_store_and_what_cannot_be_compared(store, made, tmp_path):
    result = tosca("cache", "verify", store.name, "--root", store.parent, "--recompute", 4, code=0)
    assert "nothing is wrong" in result.output
    assert "4 images computed again: within the tolerance of 1e-03" in result.output
    other = shutil.copytree(made[0] / "set", tmp_path / "other")
    shutil.copy(other / "train/a/0.png", other / "train/a/9.png")
    result = tosca("cache", "verify", store, "--recompute", 2, "--dataset", other, code=1)
    assert "recompute: could not be compared" in result.output and "dataset.listing_digest" in result.output
    missing = tosca("cache", "verify", store, "--recompute", 2, "--weights", "no.safetensors", code=1)
    assert "no such weights file" in missing.output
    assert "does not exist" in tosca("cache", "verify", "nothing", "--root", tmp_path, code=1).output


def test_a_damaged_store_is_listed_and_mended(store):
    before = everything(store)
    damage(store, "train/features/c.0.0.0", "manifest.json")
    result = tosca("cache", "verify", store, code=1)
    assert "features of shard 0 of split train, rows 0 to 5: does not have its SHA-256" in result.output
    assert "manifest.json" in result.output and f"tosca cache verify {store} --repair" in result.output
    assert {problem.kind for problem in tosca_cache.verify_store(str(store)).problems} == {"manifest", "object"}
    result = tosca("cache", "verify", store, "--repair", code=0)
    assert "mended: shard 0 of split train computed again (features)" in result.output
    assert everything(store) == before and "other bytes" not in result.output


def test_the_test_fraction_is_kept(made, tmp_path):
    folder, asked = made
    tosca("extract", *asked[2:-1], tmp_path / "cache", "--dataset", folder / "set" / "train", "--test-fraction", 0.34)
    (summary,) = list_stores(tmp_path / "cache")
    assert open_store(summary.path).provenance["source"]["test_fraction"] == 0.34
    tosca("cache", "verify", summary.path, "--recompute", 2, code=0)
