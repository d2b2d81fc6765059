"""`tosca cache export` and `import` as typed: an extracted store there and back, and pixels of digits from an .npz."""

import json

import numpy as np
import pytest
from commands import tosca
from sklearn.datasets import load_digits

from tosca_cache.store import find_store

QUICK = ["--mlp-ratio", "2", "--se-ratio", "2", "--increment", "5", "--epochs", "1", "--router", "sample"]
QUICK += ["--engine", "torch"]


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """A file of the digits' pixels: 64 features of each of 1,797 rows, a quarter of them for testing."""
    path = tmp_path_factory.mktemp("pixels") / "digits.npz"
    X, y = load_digits(return_X_y=True)
    np.savez(path, X=X.astype(np.float32), y=y, is_test=np.arange(len(y)) % 4 == 0)
    return path


def use(imported):
    """What an import says last: the command that uses its store."""
    return imported.output.splitlines()[-1].removeprefix("use it: tosca ").split()


def test_an_extracted_store_there_and_back(digits_cache, digits_place):
    assert tosca("cache", "export", "digits", "digits.h5", code=0).output.startswith("digits.h5: ")
    assert "--force" in tosca("cache", "export", "digits", "digits.h5", code=2).output
    tosca("cache", "export", "digits", "digits.h5", "--force", code=0)
    done = tosca("cache", "import", "digits.h5", "--dataset", "copy", "--root", "elsewhere", code=0)
    assert "features: train/features, test/features; labels: train/labels, test/labels" in done.output
    one, other = find_store(digits_cache, "digits"), find_store(digits_place / "elsewhere", "copy")
    for split in ("train", "test"):
        assert np.array_equal(one.features(split), other.features(split))
    assert "there already" in tosca("cache", "import", "digits.h5", "--dataset", "copy", "--root", "elsewhere").output


def test_stage_two_works_on_imported_pixels(pixels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tosca("cache", "import", pixels, "--dataset", "pixels", "--root", pixels.parent, code=0)
    assert "read from digits.npz: features: X; labels: y; split: is_test\n" in done.output
    assert "average accuracy" in tosca(*use(done), *QUICK, code=0).output
    (run,) = (tmp_path / "runs").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["last_accuracy_by_condition"]["nearest_class_mean"] > 80
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["store"]["specification"]["source"]["files"][0]["name"] == "digits.npz"


def test_a_dataset_with_a_shipped_config_takes_its_command(pixels, tmp_path):
    """The config of the digits asks for vit_nano at 32 pixels."""
    asked = ("--dataset", "digits", "--root", tmp_path)
    done = tosca("cache", "import", pixels, *asked, "--backbone", "pixels")
    assert "backbone.name: asked for" in tosca("train", *asked).output
    tosca(*use(done), *QUICK, "--runs", tmp_path / "runs", code=0)
