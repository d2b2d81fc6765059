"""Runs routed anew and shown: numbers are found again without training, names can be copied; runs that give no numbers."""

import json
import re
import shutil
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
from commands import tosca

import tosca_cache
from tosca_cache.routing import ROUTERS

SHORT = ["--increment", "2", "--epochs", "3", "--batch-size", "8", "--mlp-ratio", "4", "--se-ratio", "4"]


def train(store, runs, *more):
    """Trains two seeds and gives the run."""
    tosca("train", "--store", store, "--runs", runs, "--seed", "1,2", "--engine", "torch", *SHORT, *more, code=0)
    return next(runs.iterdir())


def measured(run):
    return json.loads((run / "metrics.json").read_text())["seeds"]


@pytest.fixture(scope="module")
def place(make_store, tmp_path_factory):
    """A folder with a store and a run of two seeds; never written to."""
    place = tmp_path_factory.mktemp("route")
    make_store(place / "store", noise=2.0, test_views=2)
    train(place / "store", place / "runs")
    return place


@pytest.fixture
def run(place):
    return next((place / "runs").iterdir())


def test_the_runs_own_numbers_are_found_again(run):
    found, seeds = json.loads(tosca("route", run, "--json", code=0).output), measured(run)
    assert [entry["seed"] for entry in found] == [1, 2]
    for entry in found:
        seed = seeds[str(entry["seed"])]
        assert set(entry["routers"]) == set(ROUTERS)
        for key in ("last_accuracy", "task_identification_accuracy", "accuracy_given_right_task"):
            assert entry["routers"]["sample"][key] == pytest.approx(seed[key])
        conditions = seed["last_accuracy_by_condition"]
        names = {"per_sample": "per_sample", "oracle": "oracle"}
        names |= {"batch_in_order": "batch_48_in_order", "batch_shuffled": "batch_48_shuffled"}
        for name, ours in names.items():
            assert entry["conditions"][ours] == pytest.approx(conditions[name])
        assert {"batch_8_in_order", "batch_256_shuffled"} < entry["conditions"].keys()
    routed = tosca("route", run, "--routers", "sample,lda", code=0)
    assert "leaks the task" in routed.output and "lda" in routed.output
    assert "same modules behind each router, percent, 2 seeds" in routed.output


def test_a_router_gives_what_training_with_it_gives(run, place, tmp_path):
    """Routers do not change what modules learn."""
    seeds = measured(train(place / "store", tmp_path / "other", "--router", "lda"))
    for entry in json.loads(tosca("route", run, "--routers", "lda", "--json").output):
        assert entry["routers"]["lda"]["last_accuracy"] == pytest.approx(seeds[str(entry["seed"])]["last_accuracy"])


def test_a_store_without_test_views_has_all_other_routers(make_store, tmp_path):
    make_store(tmp_path / "store")
    run = train(tmp_path / "store", tmp_path / "runs")
    result = tosca("route", run, "--json", code=0)
    assert set(json.loads(result.stdout)[0]["routers"]) == set(ROUTERS) - {"contracon"}
    assert "left out: contracon" in result.stderr
    assert "--test-views" in tosca("route", run, "--routers", "contracon", code=2).output


def test_moved_stores_are_given_by_hand_and_damaged_runs_and_wrong_requests_are_named(run, place, make_store, tmp_path):
    moved = shutil.copytree(run, tmp_path / "run")
    path, asked = moved / "provenance.json", ("route", moved, "--routers", "sample")
    path.write_text(path.read_text().replace(str(place / "store"), str(tmp_path / "store")))
    tosca(*asked, code=1)
    tosca(*asked, "--store", place / "store", code=0)
    make_store(tmp_path / "foreign", dataset="others")
    assert "not the store of the run" in tosca(*asked, "--store", tmp_path / "foreign", code=1).output
    assert "unknown router 'nonsense'" in tosca("route", run, "--routers", "sample,nonsense", code=2).output
    for name in ("provenance.json", "seed-2/learner.safetensors"):
        damaged = shutil.copytree(run, tmp_path / name.partition(".")[0])
        (damaged / name).write_bytes(b"{")
        assert "train the run again" in tosca("route", damaged, code=1).output


@pytest.fixture(scope="module")
def trained(make_store, tmp_path_factory):
    """A folder with two runs, and what the command of the second printed."""
    folder = tmp_path_factory.mktemp("trained")
    make_store(folder / "store", dataset="a-rather-long-name-of-photos", classes=12)
    for increment in (3, 1):
        asked = ("--store", folder / "store", "--runs", folder / "runs", "--increment", increment, "--epochs", "1")
        printed = tosca("train", *asked, code=0).output
    return folder / "runs", printed


@pytest.fixture
def runs(trained, tmp_path):
    return Path(shutil.copytree(trained[0], tmp_path / "runs"))


def test_names_are_never_cut_and_the_last_run_has_a_name(runs):
    names = sorted(path.name for path in runs.iterdir())
    for columns in ("10", "80", "200"):
        for terminal in ({}, {"FORCE_COLOR": "1", "TERM": "xterm"}):
            shown = tosca("show", "--runs", runs, columns=columns, **terminal).output
            assert all(name in shown for name in names) and "…" not in shown
    last = tosca("show", "last", "--runs", runs)
    assert "12 tasks" in last.output and last.output == tosca("show", "latest", "--runs", runs).output
    assert len(json.loads(tosca("show", "last", "--json", "--runs", runs).output)["R"]) == 12
    tosca("route", "last", "--runs", runs, "--routers", "sample", code=0)


def test_many_tasks_are_summed_up_and_stand_in_the_log(trained):
    runs, printed = trained
    lines = [line for line in printed.splitlines() if "learned" in line]
    assert len(lines[9].split("accuracy by task ")[1].split()) == 10
    assert "on average" in lines[11] and "the lowest" in lines[11]
    (row,) = [line for path in runs.glob("*/log.txt") for line in path.open() if "after task 11:" in line]
    assert len(row.split("after task 11: ")[1].split()) == 12


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(runs):
    assert json.loads(tosca("show", "--json", "--runs", runs / "none").stdout) == []
    first, second = json.loads(tosca("show", "--json", "--runs", runs).stdout)
    assert (second["dataset"], second["seeds"]) == ("a-rather-long-name-of-photos", 1)
    assert 0 <= second["last_accuracy"] <= 100
    for text in ("", "[]", "{}", "[" * 100_000, '{"R": [["a"]]}', '{"R": 3, "seeds": []}'):
        (runs / first["run"] / "metrics.json").write_text(text)
        listed = tosca("show", "--runs", runs, code=0).output
        assert second["run"] in listed and f"{first['run']}: metrics cannot be read" in listed
        found = json.loads(tosca("show", "--json", "--runs", runs).stdout)
        assert found == [{"run": first["run"], "problem": ANY}, second]
        assert "error: " in tosca("show", first["run"], "--runs", runs, code=1).output


# Runs that give no numbers, features and learners that cannot: said, with an exit code

QUICK = ("--epochs", "3", "--increment", "3", "--router", "sample")


@pytest.mark.parametrize("setting", [("--lr", "1e308"), ("--lr", "1e30"), ("--l1", "1e308")])
def test_a_diverged_run_says_so(make_store, tmp_path, setting):
    store, runs = make_store(tmp_path / "store"), tmp_path / "runs"
    result = tosca("train", "--store", store.path, "--runs", runs, *QUICK, *setting, code=1)
    assert "DIVERGED: seed 1993" in result.output and "error: training diverged (seed 1993" in result.output
    (run,) = runs.iterdir()
    assert "1993" in json.loads((run / "metrics.json").read_text())["diverged"]
    assert "seed 1993 diverged" in (run / "log.txt").read_text()
    asked = ("--methods", "tosca,simplecil", "--seeds", "1", "--increment", "3", *setting)
    compared = tosca("compare", "--store", store.path, "--runs", runs, *asked, code=1)
    assert "training diverged" in compared.output


@pytest.fixture
def asked(tmp_path):
    """Imports features of which each class has 10, or 10 of each, and gives the words of a command that name them."""

    def make(scale=1.0, classes=4, constant=0.0, name="made"):
        x = scale * np.random.default_rng(1).normal(size=(40, 6)) * (not constant) + constant
        labels, half = np.arange(40) // 2 % classes, np.arange(40) % 2 == 1
        store = tosca_cache.import_features(x.astype("f4"), labels, split=half, dataset=name, root=tmp_path)
        return "--store", store.path, "--runs", tmp_path / "runs", "--increment", min(2, classes)

    return make


@pytest.mark.parametrize(
    ("features", "code", "words"),
    [
        ({"scale": 1e30}, 1, "products overflow"),
        ({"classes": 1}, 0, "warning: the store has one class"),
        ({"constant": 1.0}, 0, "warning: all train features are equal"),
    ],
    ids=["overflow", "one class", "constant"],
)
def test_nothing_to_learn_is_said_and_products_that_overflow_are_refused(asked, features, code, words):
    named = asked(**features)
    for command in (("compare", "--methods", "simplecil", "--seeds", "1"), ("train", "--epochs", "1")):
        assert words in tosca(*command, *named, code=code).output


@pytest.mark.parametrize("size", [1e-9, 0.05])
def test_features_too_small_for_modules_are_said(asked, size):
    small, usual = (tosca("train", *asked(scale=s, name=f"s{s}"), "--epochs", 3, code=0).output for s in (size, 1.0))
    factor = re.search("warning: features are small .*such as ([^ ,]+),", " ".join(small.split()))
    assert factor and float(factor[1]) == pytest.approx(1 / size, rel=0.3)
    assert "features are small" not in usual


LEARNER = '''
import sys
import numpy as np
import torch
from tosca_cache.learners import Learner, register_learner

@register_learner
class Broken(Learner):
    """Keeps nothing."""
    name = "broken"
    source = "a test"
    def observe(self, task, *, on_epoch=None): self.classes = task.classes.stop
    def scores(self, features): SCORES
    def state(self): return {"nothing": torch.zeros(1)}
    def load_state(self, state): pass
'''
BROKEN = {
    "return np.zeros((len(features), 2))": "shape [30, 2]",
    "return np.full((len(features), self.classes), np.nan)": "NaN among them",
    "return np.zeros(len(features))": "shape [30]",
    "sys.exit(0)": "SystemExit",
}


def test_plugins_whose_scores_cannot_be_right_or_that_end_the_program(make_store, tmp_path, plugins):
    store = make_store(tmp_path / "store")
    for scores, words in BROKEN.items():
        path = plugins(LEARNER.replace("SCORES", scores), "broken.py")
        asked = ("--methods", "broken", "--plugin", path, "--seeds", "1", "--increment", "6")
        result = tosca("compare", "--store", store.path, *asked, "--runs", tmp_path / "runs", code=1)
        said = " ".join(result.output.split())
        assert words in said
        if "return" in scores:
            assert "learner broken" in said and "[30, 6]" in said and "broken.py" in said
    path = plugins("import sys\nsys.exit(0)\n", "ends.py")
    result = tosca("train", "--store", store.path, "--plugin", path, code=2)
    assert "SystemExit" in result.output and str(path) in result.output
