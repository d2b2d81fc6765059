"""The studies: their pages say what was measured; that of adaptation runs and goes on, and its modules can learn."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tosca_cache.closed_form.lda import Lda
from tosca_cache.learners.pool import Pool
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.routing import ROUTERS
from tosca_cache.store import open_store
from tosca_cache.tasks import Arrays, TaskStream

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(benchmark_script):
    return benchmark_script("adaptation_study")


@pytest.fixture
def xor():
    """Two tasks of two classes that no linear classifier tells apart within a task; a third feature tells the task."""
    generator = np.random.default_rng(5)

    def split(n):
        x, labels = generator.normal(size=(n, 64)), np.arange(n) % 4
        x[:, 0] = np.sign(x[:, 0]) * (1 + np.abs(x[:, 0]))
        x[:, 1] = np.abs(x[:, 1] * 0.3 + 2) * np.sign(x[:, 0]) * (1 - 2 * (labels % 2))
        x[:, 2] = 4 * (labels // 2) + 0.3 * x[:, 2]
        return Arrays(x.astype(np.float32)[:, None], labels.astype(np.int64))

    return TaskStream(split(800), split(400), class_names=list("abcd"), increment=2, shuffle=False, seed=1)


def test_the_pages_are_what_the_measurements_say(study, benchmark_script):
    docs, routers = ROOT / "docs", benchmark_script("router_study")
    found = [json.loads(path.read_text()) for path in sorted(routers.FOLDER.glob("*.json"))]
    tables = {"adaptation_study": study.tables(study.read(study.FOLDER)), "router_study": routers.tables(found)}
    for name, lines in tables.items():
        assert (docs / f"{name}.md").read_text(encoding="utf-8").endswith("\n".join(lines) + "\n"), name
    page = (docs / "routers.md").read_text(encoding="utf-8")
    assert not [name for name in ROUTERS if f"`{name}`" not in page], "every router is in the docs"


def test_a_small_run_measures_the_learner_and_is_not_run_twice(study, digits_cache, tmp_path, monkeypatch, capsys):
    (store,) = (path for path in digits_cache.glob("digits--*") if path.is_dir())
    asked = ["study", "run", str(digits_cache), "--small", "--only", "few-rows", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", asked)
    study.main()
    assert "few-rows--digits 1993" in capsys.readouterr().out
    found = json.loads((tmp_path / "few-rows--digits.json").read_text())
    assert list(found["cells"]) == ["val", "1993"]
    stream = study.stream_for("few-rows", open_store(store), 1993, "test")
    assert stream.train_counts().sum() == 10 * study.FEW_ROWS
    outcome = run_protocol(Pool(seed=1993), stream, curve=False)
    accuracy = 100 * (outcome.predictions[-1].labels == outcome.labels).mean()
    assert found["cells"]["1993"]["pool"] == pytest.approx(accuracy)
    study.main()
    assert capsys.readouterr().out == ""


def test_an_adapted_backbone_serves_the_seed_whose_first_classes_it_has_seen(study, make_store, tmp_path, monkeypatch):
    frozen = make_store(tmp_path / "stores" / "shapes--toy", classes=10, views=0)
    names = list(study.stream_for("adapted", frozen, 1994, "test", 4).names(0))
    path = tmp_path / "stores" / "adapted" / "shapes--toy"
    adapted = make_store(path, classes=10, views=0, noise=2.0, first_task=names)
    stores = study.adapted_stores(path.parent, frozen)
    assert [study.adapted_to(frozen, seed, stores) is None for seed in (1993, 1994)] == [True, False]
    asked = ["study", "run", str(tmp_path / "stores"), "--only", "adapted", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", asked)
    study.main()
    (cell,) = json.loads((tmp_path / "adapted--shapes.json").read_text())["cells"].items()
    assert cell[0] == "1994"
    for name, store in (("pool", frozen), ("adapted backbone, pool", adapted)):
        stream = TaskStream.from_store(store, task_sizes=[4, 2, 2, 1, 1], seed=1994)
        outcome = run_protocol(Pool(seed=1994), stream, curve=False)
        assert cell[1][name] == pytest.approx(100 * (outcome.predictions[-1].labels == outcome.labels).mean())


def test_the_variant_is_chosen_on_held_out_rows_alone(study):
    forms = {"pool": 50.0, "lda": 40.0, "class means": 60.5}
    test = forms | {"arm|a": 90.0, "arm|b": 60.0, "seconds": 1.0}
    cells = {"val": forms | {"arm|a": 10.0, "arm|b": 20.0, "seconds": 1.0}}
    cells |= {str(seed): test for seed in study.SEEDS}
    found = importlib.import_module("adaptation_tables").differences({"all-rows--x": {"cells": cells}}, "all-rows--x")
    assert found["arm"] == (60.0, 10.0, 0.0, False)  # better than the pool, and not than class means


def test_modules_learn_what_linear_discriminant_analysis_cannot(study, xor):
    training, lda = replace(study.arms.TRAINING, epochs=40), Lda()
    for task in xor:
        lda.observe(*study.arms.rows_of(task), task.classes.stop)
    x = study.test_rows(xor).double()
    plain = torch.log_softmax(lda.scores(x), 1)
    scorers = study.arms.residual_scorers(xor, training)
    adapted = study.arms.with_residuals(plain, scorers, xor, x, 1.0)
    assert study.arms.accuracy(plain, xor) < 65
    assert study.arms.accuracy(adapted, xor) > 85
    for task in (slice(0, 2), slice(2, 4)):  # the decision between tasks is left as it was
        assert torch.allclose(adapted[:, task].logsumexp(1), plain[:, task].logsumexp(1))


def test_a_replayed_module_knows_classes_whose_rows_are_gone(study, make_stream):
    stream = make_stream(noise=0.3)
    found = study.arms.replayed_scorer(stream, study.arms.TRAINING)(study.test_rows(stream).double())
    assert study.arms.accuracy(found, stream) > 3 * 100 / len(stream.class_names)
