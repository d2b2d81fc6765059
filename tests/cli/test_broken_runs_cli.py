"""Runs that give no numbers, features and learners that cannot: said, with an exit code, never as if all were well."""

import json
import re

import numpy as np
import pytest
from commands import tosca

import tosca_cache
from tosca_cache.learners import LEARNERS

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


def imported(tmp_path, features, labels):
    half = np.arange(len(labels)) % 2 == 1
    return tosca_cache.import_features(features, labels, split=half, dataset="made", root=tmp_path)


def test_features_whose_products_overflow_are_refused(tmp_path):
    x = 1e30 * np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    store = imported(tmp_path, x, np.arange(40) // 2 % 4)
    for command in (["train"], ["compare", "--methods", "simplecil", "--seeds", "1"]):
        result = tosca(*command, "--store", store.path, "--runs", tmp_path / "runs", "--increment", "2", code=1)
        assert "products overflow" in result.output


@pytest.mark.parametrize("size", [1e-9, 0.05])
def test_features_too_small_for_modules_are_said(tmp_path, size):
    x = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    stores = [imported(tmp_path / name, x * scale, np.arange(40) // 2 % 4) for name, scale in (("a", size), ("b", 1.0))]
    said = [
        tosca("train", "--store", s.path, "--runs", tmp_path / "runs", *QUICK[:2], "--increment", "2") for s in stores
    ]
    assert [result.exit_code for result in said] == [0, 0]
    factor = re.search("warning: features are small .*such as ([^ ,]+),", " ".join(said[0].output.split()))
    assert factor and float(factor[1]) == pytest.approx(1 / size, rel=0.3)
    assert "features are small" not in said[1].output


@pytest.mark.parametrize(
    ("classes", "constant", "words"), [(1, False, "has one class"), (4, True, "all train features are equal")]
)
def test_nothing_to_learn_is_said(tmp_path, classes, constant, words):
    x = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    store = imported(tmp_path, np.ones_like(x) if constant else x, np.arange(40) // 2 % classes)
    asked = ("--methods", "simplecil", "--seeds", "1", "--increment", "1", "--runs", tmp_path / "runs")
    result = tosca("compare", "--store", store.path, *asked, code=0)
    assert f"warning: {words}" in result.output.replace("the store ", "")


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


@pytest.fixture
def forgotten():
    yield
    LEARNERS.pop("broken", None)


@pytest.mark.parametrize("scores", BROKEN)
def test_a_learner_whose_scores_cannot_be_right(make_store, tmp_path, forgotten, scores):
    path = tmp_path / "broken.py"
    path.write_text(LEARNER.replace("SCORES", scores))
    store = make_store(tmp_path / "store")
    asked = ("--methods", "broken", "--plugin", path, "--seeds", "1", "--increment", "6", "--runs", tmp_path / "runs")
    result = tosca("compare", "--store", store.path, *asked, code=1)
    said = " ".join(result.output.split())
    assert BROKEN[scores] in said
    if "return" in scores:
        assert "learner broken" in said and "[30, 6]" in said and "broken.py" in said


def test_a_plugin_that_ends_the_program(make_store, tmp_path):
    path = tmp_path / "ends.py"
    path.write_text("import sys\nsys.exit(0)\n")
    result = tosca("train", "--store", make_store(tmp_path / "store").path, "--plugin", path, code=2)
    assert "SystemExit" in result.output and str(path) in result.output
