"""Runs that give no numbers, features and learners that cannot: said, with an exit code, never as if all were well."""

import json
import re

import numpy as np
import pytest
from commands import tosca

import tosca_cache

QUICK = ("--epochs", "3", "--increment", "3", "--router", "sample")
TABLE = ("compare", "--methods", "simplecil", "--seeds", "1")


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
    ("features", "words"),
    [
        ({"scale": 1e30}, "products overflow"),
        ({"classes": 1}, "warning: the store has one class"),
        ({"constant": 1.0}, "warning: all train features are equal"),
    ],
    ids=["overflow", "one class", "constant"],
)
def test_nothing_to_learn_is_said_and_products_that_overflow_are_refused(asked, features, words):
    refused = "scale" in features
    result = tosca(*TABLE, *asked(**features), code=int(refused))
    assert words.replace("the store ", "") in result.output.replace("the store ", "")
    if refused:
        assert words in tosca("train", *asked(**features), code=1).output


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
