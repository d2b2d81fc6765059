"""`tosca train` and `tosca show` on real stores: what a run directory holds, and what bad requests leave behind."""

import errno
import json
import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from commands import tosca
from trees import everything

from tosca_cache.learners.files import load_learner
from tosca_cache.store import open_store

QUICK = ("--epochs", "2", "--batch-size", "8", "--mlp-ratio", "4", "--se-ratio", "4", "--increment", "2")


def train(*arguments, **how):
    return tosca("train", "--dataset", "shapes", *QUICK, *arguments, **how)


def only_run(folder="runs"):
    (run,) = [path for path in Path(folder).iterdir() if path.is_dir()]
    return run


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


def test_a_run_directory_is_complete(shapes_place):
    result = train("--seed", "5", code=0)
    run = only_run()
    expected = ("average accuracy", "forgetting", "task-identification accuracy", "stage one: extract")
    for text in (str(run), *expected, "stage two: train"):
        assert text in result.output
    made = {"config.toml", "metrics.json", "provenance.json", "log.txt", "seed-5", "report.html"}
    assert {path.name for path in run.iterdir()} == made | {"accuracy-curve.png", "accuracy-matrix.png"}
    metrics = metrics_of(run)
    R = np.array(metrics["R"], dtype=float)
    assert R.shape == (3, 3) and np.isfinite(R[np.tril_indices(3)]).all()
    assert metrics["last_accuracy"] == pytest.approx(R[-1].mean()), "five test rows a class"
    assert metrics["seconds"]["extract"] == 1.5
    assert metrics["last_accuracy_by_condition"]["per_sample"] == pytest.approx(metrics["last_accuracy"])
    tasks = metrics["seeds"]["5"]["tasks"]
    with np.load(run / "seed-5" / "predictions.npz") as saved:
        right = saved["prediction_after_2"] == saved["label"]
        assert 100 * right.mean() == pytest.approx(metrics["last_accuracy"])
        assert saved["entropy"].shape == (3, 30) and sorted(saved["row"].tolist()) == list(range(30))
        store = open_store("cache/shapes--toy")
        assert np.array_equal(saved["label"], store.labels("test")[saved["row"]]), "classes are the store's labels"
        chosen = saved["module_prediction"][saved["module_after_2"], np.arange(30)]
        assert np.array_equal(chosen, saved["prediction_after_2"])
        names = [store.class_names[label] for label in saved["class_order"]]
        assert names == list(chain(*tasks)) != sorted(names)
    learner, facts = load_learner(run / "seed-5" / "learner.safetensors")
    assert (len(learner.bank), facts["task_sizes"], facts["class_names"]) == (3, [2, 2, 2], names)
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["store"]["specification"]["backbone"]["name"] == "toy"
    assert provenance["settings_from"]["epochs"] == "command line"
    assert "seed 5 begins" in (run / "log.txt").read_text()
    assert "average accuracy" in tosca("show", run.name, code=0).output and run.name in tosca("show").output
    assert json.loads(tosca("show", run, "--json").output)["R"] == metrics["R"]


def test_a_seed_or_the_config_of_its_run_gives_the_same_r_and_runs_never_overwrite(shapes_place):
    for _ in range(2):
        train("--seed", "7", "--l1", "0.001", code=0)
    tosca("train", "--config", next(Path("runs").iterdir()) / "config.toml", code=0)
    found = [metrics_of(run)["R"] for run in Path("runs").iterdir()]
    assert len(found) == 3 and found[0] == found[1] == found[2]


def test_several_seeds_give_means_and_each_seeds_own(shapes_place):
    tosca("train", "--store", "cache/shapes--toy", *QUICK, "--seed", "1,2,3", code=0)
    metrics = metrics_of(only_run())
    assert metrics["dataset"] == "shapes", "a store that is named brings its dataset"
    each = [seed["last_accuracy"] for seed in metrics["seeds"].values()]
    assert list(metrics["seeds"]) == ["1", "2", "3"]
    assert metrics["last_accuracy"] == pytest.approx(np.mean(each))
    assert metrics["spread"]["last_accuracy"] == pytest.approx(np.std(each, ddof=1))
    each = [np.array(seed["R"], dtype=float) for seed in metrics["seeds"].values()]
    np.testing.assert_allclose(np.array(metrics["R"], dtype=float), np.mean(each, axis=0))
    one, other, _ = (seed["tasks"] for seed in metrics["seeds"].values())
    assert one != other and sorted(chain(*one)) == sorted(chain(*other))


def test_the_router_batch_routes_in_order_and_says_that_it_leaks(shapes_place):
    result = train("--router", "batch", code=0)
    run = only_run()
    metrics = metrics_of(run)
    assert metrics["router"] == "batch"
    assert metrics["last_accuracy"] == pytest.approx(metrics["last_accuracy_by_condition"]["batch_in_order"])
    shown = (metrics["leaks"], (run / "log.txt").read_text(), tosca("show", run).output, tosca("show").output)
    assert all("leaks the task" in text for text in shown)
    for line in result.output.splitlines():
        assert "learned, accuracy by task" not in line or "leaks the task" in line


def truncate(place):
    shard = max((place / "cache/shapes--toy/train/features").glob("c*"), key=lambda path: path.stat().st_size)
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)


def one_class_more(place):
    manifest = place / "cache/shapes--toy/manifest.json"
    manifest.write_text(manifest.read_text().replace('"class-5"', '"class-5", "class-6"'))


def corrupt_config(place):
    (place / "bad.toml").write_text("[training\nlr = ")


def runs_is_a_file(place):
    (place / "file").write_text("")


BAD = {
    "unknown dataset": (None, ["--dataset", "shape"], 1, "tosca extract"),
    "unknown learner": (None, ["--method", "ranpak"], 2, "did you mean 'ranpac'"),
    "unknown option": (None, ["--method", "ranpac", "--set", "expanse=3"], 2, "ranpac has no option 'expanse'"),
    "no value": (None, ["--method", "ranpac", "--set", "expansion"], 2, "sets nothing"),
    "corrupt config": (corrupt_config, ["--config", "bad.toml"], 2, "bad.toml"),
    "another store": (None, ["--store", "cache/none"], 1, "does not exist"),
    "truncated store": (truncate, [], 1, "damaged"),
    "more classes than labels": (one_class_more, ["--store", "cache/shapes--toy"], 1, "cannot be trusted"),
    "no such device": (None, ["--device", "cuda:9"], 2, "cuda:9"),
    "runs is a file": (runs_is_a_file, ["--runs", "file"], 1, "A file is in the way"),
    "runs below a file": (runs_is_a_file, ["--runs", "file/runs"], 1, "Choose another folder with --runs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_give_one_clear_message_and_leave_earlier_runs(shapes_place, case):
    Path("runs/earlier").mkdir(parents=True)
    Path("runs/earlier/metrics.json").write_text("{}")
    prepare, options, status, words = BAD[case]
    if prepare is not None:
        prepare(shapes_place)
    said = train(*options, code=status).output
    assert words in said and "error: " in said.lower() and "do:" in said
    assert everything("runs") == {"earlier/metrics.json": b"{}"}


def test_pictures_that_cannot_be_drawn_cost_no_run_but_a_full_disk_does(shapes_place, monkeypatch):
    def fails(error):
        def save_figures(*_):
            raise error

        monkeypatch.setattr("tosca_cache.runs.train.save_figures", save_figures)

    fails(ValueError("Key backend: 'nonsense'\nis not a valid value"))
    result = train(code=0)
    assert "warning: the pictures could not be drawn: Key backend: 'nonsense' is" in result.stderr
    assert "no pictures" in (only_run() / "log.txt").read_text() and "pictures: " not in tosca("show", "last").stdout
    fails(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    result = train("--runs", "full", code=1)
    assert "No space left" in result.output and "Free space" in result.output
    (left,) = Path("full").iterdir()
    assert left.suffix == ".partial" and ".partial" not in tosca("show", "--runs", "full", code=0).output
    assert "interrupted" in tosca("show", left.stem, "--runs", "full", code=1).output
    tosca("show", "nothing", code=1)


def test_a_read_only_folder_is_named(shapes_place, mounted):
    """root may write anywhere, so the folder is made read-only by the file system."""
    assert "writable" in train("--runs", mounted("ro"), code=1).output
