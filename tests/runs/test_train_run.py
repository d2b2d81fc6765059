"""`tosca train` and `tosca show` on real stores: what a run directory holds, and what bad requests leave behind."""

import errno
import json
import os
import shutil
import tempfile
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from commands import tosca
from reference.setting import REFERENCE

from tosca_cache.learners.files import load_learner
from tosca_cache.store import open_store

QUICK = ("--epochs", "2", "--batch-size", "8", "--mlp-ratio", "4", "--se-ratio", "4", "--increment", "2")


def train(*arguments, **how):
    return tosca("train", "--dataset", "shapes", *QUICK, *arguments, **how)


def only_run(folder="runs"):
    (run,) = [path for path in Path(folder).iterdir() if path.is_dir()]
    return run


def test_a_run_directory_is_complete(shapes_place):
    result = train("--seed", "5", "--router", "sample", code=0)
    run = only_run()
    expected = ("average accuracy", "forgetting", "task-identification accuracy", "stage one: extract")
    for text in (str(run), *expected, "stage two: train"):
        assert text in result.output
    made = {"config.toml", "metrics.json", "provenance.json", "log.txt", "seed-5", "report.html"}
    assert {path.name for path in run.iterdir()} == made | {"accuracy-curve.png", "accuracy-matrix.png"}
    metrics = json.loads((run / "metrics.json").read_text())
    R = np.array(metrics["R"], dtype=float)
    assert R.shape == (3, 3)
    assert np.isfinite(R[np.tril_indices(3)]).all()
    assert metrics["last_accuracy"] == pytest.approx(R[-1].mean()), "five test rows a class"
    assert metrics["seconds"]["extract"] == 1.5
    assert metrics["last_accuracy_by_condition"]["per_sample"] == pytest.approx(metrics["last_accuracy"])
    with np.load(run / "seed-5" / "predictions.npz") as saved:
        right = saved["prediction_after_2"] == saved["label"]
        assert 100 * right.mean() == pytest.approx(metrics["last_accuracy"])
        assert saved["entropy"].shape == (3, 30)
        assert sorted(saved["row"].tolist()) == list(range(30))
        store = open_store("cache/shapes--toy")
        assert np.array_equal(saved["label"], store.labels("test")[saved["row"]]), "classes are the store's labels"
        chosen = saved["module_prediction"][saved["module_after_2"], np.arange(30)]
        assert np.array_equal(chosen, saved["prediction_after_2"])
        names = [store.class_names[label] for label in saved["class_order"]]
        assert names == list(chain(*metrics["seeds"]["5"]["tasks"])) != sorted(names)
    learner, facts = load_learner(run / "seed-5" / "learner.safetensors")
    assert (len(learner.bank), facts["task_sizes"]) == (3, [2, 2, 2])
    assert facts["class_names"] == [names for task in metrics["seeds"]["5"]["tasks"] for names in task]
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["store"]["specification"]["backbone"]["name"] == "toy"
    assert provenance["settings_from"]["epochs"] == "command line"
    assert "seed 5 begins" in (run / "log.txt").read_text()
    shown = tosca("show", run.name, code=0)
    assert "average accuracy" in shown.output
    assert json.loads(tosca("show", run, "--json").output)["R"] == metrics["R"]
    assert run.name in tosca("show").output


def test_a_seed_or_the_config_of_its_run_gives_the_same_r_and_runs_never_overwrite(shapes_place):
    for _ in range(2):
        train("--seed", "7", "--l1", "0.001", code=0)
    run = next(Path("runs").iterdir())
    tosca("train", "--config", run / "config.toml", code=0)
    found = [json.loads((run / "metrics.json").read_text())["R"] for run in Path("runs").iterdir()]
    assert len(found) == 3 and found[0] == found[1] == found[2]


def test_several_seeds_give_means_and_each_seeds_own(shapes_place):
    tosca("train", "--store", "cache/shapes--toy", *QUICK, "--seed", "1,2,3", code=0)
    metrics = json.loads((only_run() / "metrics.json").read_text())
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
    result = tosca("train", "--dataset", "shapes", "--router", "batch", "--epochs", "2", "--increment", "2", code=0)
    metrics = json.loads((only_run() / "metrics.json").read_text())
    assert metrics["router"] == "batch"
    assert metrics["last_accuracy"] == pytest.approx(metrics["last_accuracy_by_condition"]["batch_in_order"])
    assert "leaks the task" in metrics["leaks"]
    assert "leaks the task" in tosca("show", only_run()).output
    for line in result.output.splitlines():
        assert "learned, accuracy by task" not in line or "leaks the task" in line
    assert "leaks the task" in (only_run() / "log.txt").read_text()
    assert "leaks the task" in tosca("show").output


def test_reference_json_unchanged(shapes_place, make_store):
    make_store(shapes_place / "cache" / "birds", dataset="cub")
    setting = REFERENCE | {"dataset": "cub", "init_cls": 2, "increment": 2, "backbone_type": "toy", "mlp_ratio": 4}
    setting |= {"se_ratio": 4, "epochs": 2, "scheduler": "constant", "milestones": [10]}
    Path("setting.json").write_text(json.dumps(setting))
    # The reference does not normalise its inputs; this store was made with normalisation.
    refused = tosca("train", "--config", "setting.json", code=1)
    assert "normalize" in refused.output
    tosca("train", "--config", "setting.json", "--normalize", "timm", code=0)


def test_show_config_prints_origins_and_trains_nothing(shapes_place):
    result = train("--l1", "0.002", "--show-config", code=0)
    (l1,) = [line for line in result.output.splitlines() if " l1 " in line]
    assert "0.002" in l1
    assert "command line" in l1
    assert not Path("runs").exists()


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
    "epochs 0": (None, ["--epochs", "0"], 2, "epochs"),
    "increment too large": (None, ["--increment", "7"], 2, "6 classes"),
    "unknown dataset": (None, ["--dataset", "shape"], 1, "tosca extract"),
    "unknown router": (None, ["--router", "best"], 2, "sample"),
    "unknown learner": (None, ["--method", "ranpak"], 2, "did you mean 'ranpac'"),
    "unknown option": (None, ["--method", "ranpac", "--set", "expanse=3"], 2, "ranpac has no option 'expanse'"),
    "wrong option": (None, ["--method", "ranpac", "--set", "expansion=many"], 2, "expansion cannot be 'many'"),
    "no value": (None, ["--method", "ranpac", "--set", "expansion"], 2, "sets nothing"),
    "unknown config": (None, ["--config", "cubb"], 2, "cub"),
    "corrupt config": (corrupt_config, ["--config", "bad.toml"], 2, "bad.toml"),
    "another backbone": (None, ["--backbone", "vit_nano"], 1, "toy"),
    "another store": (None, ["--store", "cache/none"], 1, "does not exist"),
    "truncated store": (truncate, [], 1, "damaged"),
    "more classes than labels": (one_class_more, ["--store", "cache/shapes--toy"], 1, "cannot be trusted"),
    "no such device": (None, ["--device", "cuda:9"], 2, "cuda:9"),
    "steplr without milestones": (None, ["--scheduler", "steplr"], 2, "milestones"),
    "runs is a file": (runs_is_a_file, ["--runs", "file"], 1, "A file is in the way"),
    "runs below a file": (runs_is_a_file, ["--runs", "file/runs"], 1, "Choose another folder with --runs"),
}


@pytest.fixture(scope="module")
def earlier():
    """The runs that there are, made by the first test that asks: (folder) -> None copies them there."""
    with tempfile.TemporaryDirectory() as kept:

        def copy(folder):
            if not list(Path(kept).iterdir()):
                train("--runs", kept, code=0)
            shutil.copytree(kept, folder)

        yield copy


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_give_one_clear_message_and_leave_earlier_runs(shapes_place, earlier, case):
    earlier("runs")
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    prepare, options, status, words = BAD[case]
    if prepare is not None:
        prepare(shapes_place)
    result = train(*options)
    assert result.exit_code == status, result.output
    assert words in result.output
    assert "error: " in result.output or "Error: " in result.output
    assert "do:" in result.output
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before


def test_pictures_that_cannot_be_drawn_cost_no_run_but_a_full_disk_does(shapes_place, monkeypatch):
    def fails(error):
        def save_figures(*_):
            raise error

        monkeypatch.setattr("tosca_cache.runs.train.save_figures", save_figures)

    fails(ValueError("Key backend: 'nonsense'\nis not a valid value"))
    result = train("--seed", "5", "--router", "sample", code=0)
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
