"""Real photos under a real ViT, end to end through the command line; skipped where the shared material is absent.

To fit into a test the backbone sees 98 pixels instead of 224, one augmented view, every third class and at most 8 photos of
it in a split (all classes and 16 photos in `make test-long`); docs/evidence.md has the full size.
"""

import json
import shutil
from pathlib import Path

import pytest
from campaign import times
from commands import tosca

import tosca_cache
from tosca_cache.store import open_store

MODEL = "vit_small_patch14_dinov2"
PHOTOS = times(8, 16)  # of each class, a split
CLASSES = times(27, 81)

pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def place(shared, tmp_path_factory):
    photos, weights = shared / "data" / "grocery", shared / "weights" / f"{MODEL}.saliency.fp16.safetensors"
    if not (photos.is_dir() and weights.is_file()):
        pytest.skip(f"no grocery photos or ViT weights in {shared}")
    folder = tmp_path_factory.mktemp("grocery")
    some = folder / "grocery"
    names = sorted(path.name for path in photos.glob("train/*") if path.is_dir())[:: 81 // CLASSES]
    for kind in (photos / split / name for split in ("train", "test") for name in names):
        (some / kind.relative_to(photos)).mkdir(parents=True)
        for photo in sorted(kind.glob("*.jpg"))[:PHOTOS]:
            shutil.copy(photo, some / photo.relative_to(photos))
    source = ("--dataset", some, "--backbone", MODEL, "--weights", weights)
    tosca("extract", *source, "--img-size", 98, "--precision", "fp32", "--views", 1, "--root", folder / "cache", code=0)
    return folder


@pytest.mark.parametrize("increment", [1, 9, CLASSES])
def test_the_default_is_not_below_the_simple_ones(place, increment):
    (path,) = (place / "cache").glob("grocery--*")
    names = ("simplecil", "fsa-lda", "pool")
    store = open_store(path)
    assert (len(store.class_names), store.views("train")) == (CLASSES, 2)
    table = tosca_cache.compare(store, names, seeds=[1993], increment=increment, epochs=5, batch_size=16)
    found = {row["method"]: row["values"]["last_accuracy"]["mean"] for row in table["rows"]}
    assert found["pool"] >= max(found["simplecil"], found["fsa-lda"]) - 1, found


def test_tasks_of_nine_and_the_routing_conditions(place):
    where = ("--root", place / "cache", "--runs", place / "runs", "--batch-size", times(8, 48))
    tosca("train", "--dataset", "grocery", "--increment", 9, "--router", "sample", *where, code=0)
    (run,) = Path(place / "runs").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["task_sizes"] == [9] * (CLASSES // 9)
    assert len(metrics["R"][-1]) == CLASSES // 9
    conditions = metrics["last_accuracy_by_condition"]
    assert conditions["per_sample"] == pytest.approx(metrics["last_accuracy"])
    assert conditions["per_sample"] > 2.5 * 100 / CLASSES, "far above chance"
    assert conditions["oracle"] > conditions["per_sample"]
    assert conditions["batch_shuffled"] < conditions["batch_in_order"], "the order of the file leaks the task"
