"""`tosca cache verify` and `tosca cache why` as a user meets them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import tosca
from PIL import Image

from tosca_cache.cli.app import app
from tosca_cache.store import list_stores, open_store


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny):
    """A folder of images, and the store that the options `asked` make of them."""
    folder = tmp_path_factory.mktemp("verify")
    for number, name in enumerate(("a/0", "a/1", "a/2", "b/0", "b/1", "b/2")):
        for split in ("train", "test"):
            path = folder / "set" / split / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((20, 20, 3), 40 * number, dtype=np.uint8)).save(path)
    asked = ["--dataset", folder / "set", *tiny, "--views", 1, "--precision", "fp32", "--device", "cpu"]
    asked += ["--root", folder / "cache"]
    tosca("extract", *asked)
    return folder, asked


@pytest.fixture
def store(made, tmp_path):
    (summary,) = list_stores(made[0] / "cache")
    return Path(shutil.copytree(summary.path, tmp_path / "cache" / summary.path.name))


def spoil(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_good_store(store):
    result = tosca("cache", "verify", store, "--recompute", 4, "--images", code=0)
    assert "nothing is wrong" in result.output and "as they were listed" in result.output
    assert "4 views computed again: within the tolerance of 1e-03" in result.output
    facts = json.loads(tosca("cache", "verify", store.name, "--root", store.parent, "--recompute", 3, "--json").stdout)
    assert facts["ok"] and facts["recompute"]["compared"] == 3 and facts["problems"] == []


def test_a_damaged_store_is_listed_and_mended(store):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    spoil(store / "train/features/c.0.0.0")
    spoil(store / "manifest.json")
    result = tosca("cache", "verify", store, code=1)
    assert "features of shard 0 of split train, rows 0 to 5: does not have its SHA-256" in result.output
    assert "manifest.json" in result.output and f"tosca cache verify {store} --repair" in result.output
    facts = json.loads(tosca("cache", "verify", store, "--json").stdout)
    assert not facts["ok"] and {p["kind"] for p in facts["problems"]} == {"manifest", "object"}
    result = tosca("cache", "verify", store, "--repair", code=0)
    assert "mended: shard 0 of split train computed again (features)" in result.output
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_json_of_a_repair(store):
    spoil(store / "test/labels/c.0")
    facts = json.loads(tosca("cache", "verify", store, "--repair", "--json").stdout)
    assert facts["ok"] and facts["repair"]["before"][0]["where"] == "test/labels/c.0"
    assert facts["repair"]["changed"] == []


def test_what_cannot_be_compared_is_said(store, made, tmp_path):
    other = shutil.copytree(made[0] / "set", tmp_path / "other")
    shutil.copy(other / "train/a/0.png", other / "train/a/9.png")
    result = tosca("cache", "verify", store, "--images", "--recompute", 2, "--dataset", other, code=1)
    assert "1 added: train: train/a/9.png" in result.output
    assert "recompute: could not be compared" in result.output and "dataset.listing_digest" in result.output
    facts = json.loads(
        tosca("cache", "verify", store, "--recompute", 2, "--weights", "no.safetensors", "--json").stdout
    )
    assert not facts["ok"] and "no such weights file" in facts["recompute"]["error"]


def test_from_python(store):
    import tosca_cache as tosca

    assert tosca.verify_store(str(store)).ok
    spoil(store / "zarr.json")
    (problem,) = tosca.verify_store(store).problems
    assert problem.where == "zarr.json" and problem.mendable


def test_no_store(tmp_path):
    result = tosca("cache", "verify", "nothing", "--root", tmp_path, code=1)
    assert "does not exist" in result.output


def test_why_there_is_one(made):
    result = tosca("cache", "why", *made[1], "--workers", 1, "--jobs", 2, code=0)
    assert result.output.startswith("matches: ")
    facts = json.loads(tosca("cache", "why", *made[1], "--json").stdout)
    assert facts["matches"] and facts["stores"][0]["differences"] == []


def test_why_there_is_none(made):
    result = tosca("cache", "why", *made[1], "--views", 3, "--store-dtype", "float32", code=1)
    (summary,) = list_stores(made[0] / "cache")
    assert str(summary.path) in result.output
    assert 'dtype: asked for "float32", it has "float16"' in result.output
    assert "views.count: asked for 3, it has 1" in result.output
    assert "make it: tosca extract --dataset" in result.output and "--views 3" in result.output


def test_why_names_the_nearest_first_and_what_an_unfinished_one_was_begun_with(made, tmp_path):
    asked = [*made[1][:-1], tmp_path / "cache"]
    tosca("cache", "why", *asked, code=1)
    tosca("extract", *asked)
    (tmp_path / "cache" / "junk").mkdir()
    (tmp_path / "cache" / "junk" / "manifest.json").write_text("{")
    tosca("extract", *asked, "--views", 3, "--part", "1/2", "--batch-size", 4)
    facts = json.loads(tosca("cache", "why", *asked, "--views", 3, "--batch-size", 6, "--json").stdout)
    assert not facts["matches"]
    assert [one["state"] for one in facts["stores"]] == ["finished", "unfinished", "damaged"]
    assert [one["differences"] for one in facts["stores"][:2]] == [
        [{"field": "views.count", "asked": 3, "store": 1}],
        [{"field": "numerics.batch_size", "asked": 6, "store": 4}],
    ]
    result = tosca("cache", "why", *asked, "--views", 3, code=0)
    assert "it is unfinished; this goes on with it" in result.output


def test_why_has_the_options_of_extract():
    import typer

    group = typer.main.get_command(app)
    extract, why = group.commands["extract"], group.commands["cache"].commands["why"]
    assert {p.name: p.opts for p in extract.params}.items() <= {p.name: p.opts for p in why.params}.items()
    assert {p.name for p in why.params} - {p.name for p in extract.params} == {"as_json"}


def test_the_test_fraction_is_kept(made, tmp_path):
    folder, asked = made
    tosca("extract", *asked[2:-1], tmp_path / "cache", "--dataset", folder / "set" / "train", "--test-fraction", 0.34)
    (summary,) = list_stores(tmp_path / "cache")
    assert open_store(summary.path).provenance["source"]["test_fraction"] == 0.34
    tosca("cache", "verify", summary.path, "--images", "--recompute", 2, code=0)
