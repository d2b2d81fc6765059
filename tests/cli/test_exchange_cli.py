"""`tosca cache export` and `import` as typed: an extracted store there and back, and pixels of digits from an .npz."""

import json

import numpy as np
import pytest
from commands import tosca
from sklearn.datasets import load_digits

from tosca_cache.store import open_store

SIZE = ["--mlp-ratio", "2", "--se-ratio", "2", "--increment", "5"]
QUICK = [*SIZE, "--epochs", "1", "--router", "sample", "--engine", "torch"]


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """A file of the digits' pixels: 64 features of each of 1,797 rows, a quarter of them for testing."""
    path = tmp_path_factory.mktemp("pixels") / "digits.npz"
    X, y = load_digits(return_X_y=True)
    np.savez(path, X=X.astype(np.float32), y=y, is_test=np.arange(len(y)) % 4 == 0)
    return path


def test_an_extracted_store_there_and_back(digits_place, digits_cache):
    (store,) = (path for path in digits_cache.iterdir() if path.is_dir())
    done = tosca("cache", "export", "digits", "digits.h5", code=0)
    assert done.output.startswith("digits.h5: ")
    refused = tosca("cache", "export", "digits", "digits.h5")
    assert (refused.exit_code, "--force" in refused.output) == (2, True)
    tosca("cache", "export", "digits", "digits.h5", "--force", code=0)
    done = tosca("cache", "import", "digits.h5", "--dataset", "copy", "--root", "elsewhere", code=0)
    assert "  features: train/features, test/features\n" in done.output
    (again,) = (path for path in (digits_place / "elsewhere").iterdir() if path.is_dir())
    one, other = open_store(store), open_store(again)
    for split in ("train", "test"):
        assert np.array_equal(one.features(split), other.features(split))
        assert np.array_equal(one.labels(split), other.labels(split))
    assert "there already" in tosca("cache", "import", "digits.h5", "--dataset", "copy", "--root", "elsewhere").output


@pytest.fixture(scope="module")
def imported(pixels):
    """The folder with a store of the pixels."""
    done = tosca("cache", "import", pixels, "--dataset", "pixels", "--root", pixels.parent, code=0)
    assert "  features: X\n  labels: y\n  split: is_test\n" in done.output
    assert done.output.endswith(f"use it: tosca train --dataset pixels --root {pixels.parent}\n")
    return pixels.parent


def test_stage_two_works_on_imported_pixels(imported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = ["--dataset", "pixels", "--root", imported]
    trained = tosca("train", *store, *QUICK, code=0)
    assert "average accuracy" in trained.output
    (run,) = (tmp_path / "runs").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["last_accuracy_by_condition"]["nearest_class_mean"] > 80
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["store"]["specification"]["source"]["files"][0]["name"] == "digits.npz"
    compared = tosca("compare", *store, "--methods", "simplecil,slda", "--seeds", "1", "--increment", "5", code=0)
    assert "slda" in compared.output
    axes = [f"--set={axis}" for axis in ("epochs=1", "increment=5", "mlp_ratio=2", "router=sample", "l1=0,1e-3")]
    swept = tosca("sweep", *store, *axes, "--seeds", "1993", "--report-seeds", "1993", "--engine", "torch", code=0)
    assert "chosen setting" in swept.output


def test_a_dataset_with_a_shipped_config_takes_its_command(pixels, tmp_path):
    """The config of the digits asks for vit_nano at 32 pixels."""
    from tosca_cache.config import resolve
    from tosca_cache.runs.stores import wanted_store

    done = tosca("cache", "import", pixels, "--dataset", "digits", "--backbone", "pixels", "--root", tmp_path)
    assert f"use it: tosca train --dataset digits --backbone pixels --root {tmp_path}\n" in done.output
    settings = resolve(overrides={"dataset": "digits", "backbone": "pixels"})
    assert wanted_store(settings, None, tmp_path)[0].spec.imported
    refused = tosca("train", "--dataset", "digits", "--root", tmp_path)
    assert "backbone.name: asked for" in refused.output


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ([], 2, "Missing option '--dataset'"),
        (["--dataset", "p", "--labels", "nope"], 2, "there is no array 'nope'"),
        (["--dataset", "p", "--features", "a,b,c"], 2, "names no array"),
        (["--dataset", "p", "--split", "none"], 2, "--test-fraction 0.2"),
        (["--dataset", "p", "--max-bytes", "1000"], 1, "allow it: --max-bytes"),
        (["--dataset", "../p"], 2, "is no name"),
    ],
)
def test_wrong_requests(pixels, tmp_path, options, code, text):
    done = tosca("cache", "import", pixels, "--root", tmp_path / "root", *options)
    assert done.exit_code == code, done.output
    assert text in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "root").exists() or not list((tmp_path / "root").iterdir())
