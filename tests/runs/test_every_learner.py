"""`tosca train --method NAME`: every learner makes a run that is shown, kept and opened again."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import tosca

import tosca_cache
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.files import load_learner
from tosca_cache.tasks import Rows, Task

QUICK = ("--epochs", "2", "--batch-size", "8", "--mlp-ratio", "4", "--se-ratio", "4", "--increment", "2")
SMALL = {
    "ranpac": "expansion=40",
    **dict.fromkeys(("acil", "acil-vit", "ds-al", "f-oal", "garm"), "buffer=40"),
    **dict.fromkeys(("anacp", "fly-cl", "klda", "klda-e", "loranpac", "randumb"), "expansion=100"),
}


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_a_run_of_any_learner(shapes_place, name):
    options = ("--set", SMALL[name]) if name in SMALL else ()
    result = tosca("train", "--dataset", "shapes", "--method", name, *options, *QUICK, code=0)
    assert f"3 tasks, {name}" in result.output
    (run,) = Path("runs").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["method"] == name
    assert metrics["last_accuracy_by_condition"]["pool"] > 0
    assert name in tosca("show").output
    learner, facts = load_learner(run / "seed-1993" / "learner.safetensors")
    assert (facts["method"], facts["task_sizes"], facts["dim"]) == (name, [2, 2, 2], 12)
    stream = tosca_cache.task_stream(tosca_cache.open_store("cache/shapes--toy"), increment=2)
    test_set = learner.test_set()
    for number in range(len(stream)):
        rows = stream.test(number).features
        test_set.add(rows, number) if name == "oracle-luca" else test_set.add(rows)
    with np.load(run / "seed-1993" / "predictions.npz") as saved:
        found = stream.as_labels(stream.class_of[test_set.predict().labels], "original")
        assert np.array_equal(found, saved["prediction_after_2"])
    again = tosca("train", "--config", run / "config.toml", "--store", "cache/shapes--toy", "--show-config")
    assert f'"{name}"' in again.output and list(Path("runs").iterdir()) == [run], "shown, and nothing is trained"
    routed = tosca("route", run)
    assert (routed.exit_code == 0) == ("router" in metrics and metrics["router"] is not None)


@pytest.mark.parametrize("command", [("train", "--method"), ("compare", "--methods")])
def test_what_a_learner_will_need_is_said_before_it_begins(shapes_place, monkeypatch, command):
    monkeypatch.setattr("tosca_cache.learners.base.free_memory", lambda device: 100_000)
    option = "expansion=2000" if command[0] == "train" else "ranpac.expansion=2000"
    words = (command[0], "--dataset", "shapes", command[1], "ranpac", "--set", option, *QUICK)
    said = " ".join(tosca(*words, code=0).output.split())
    assert "warning: ranpac will need about" in said and "GB of memory; 0.0001 GB are free" in said
    monkeypatch.setattr("tosca_cache.learners.base.total_memory", lambda device: 100_000)
    result = tosca(*words, "--seed" if command[0] == "train" else "--seeds", "5")
    assert result.exit_code == 2 and "fewer random features" in result.output, result.output


MEMORY = {  # of random features, and double precision where there is a choice
    "pool": {},
    **{name: {"buffer": 40} for name in ("acil", "ds-al", "f-oal", "garm")},
    **{name: {"expansion": 40} for name in ("klda", "klda-e", "randumb")},
    **{name: {"expansion": 40, "precision": "float64"} for name in ("anacp", "fly-cl", "ranpac")},
    "gkeal": {"centres": 40},
    "loranpac": {"expansion": 40, "rank": 30},
}


@pytest.mark.parametrize("name", sorted(MEMORY))
def test_what_it_needs_is_at_least_what_it_keeps(name):
    """Before and after there are as many rows as random features, and in each form that is kept."""
    for rows in ([9, 7], [30, 30, 30, 30], [200, 2]):
        learner, generator = LEARNERS[name](seed=1, **MEMORY[name]), np.random.default_rng(0)
        needed = learner.memory_needed(rows, 2 * len(rows), 12)
        for number, count in enumerate(rows):
            labels = np.sort(2 * number + np.arange(count) % 2)
            features = generator.normal(size=(count, 1, 12)).astype(np.float32)
            learner.observe(Task(number, range(2 * number, 2 * number + 2), Rows(features, labels, np.arange(count))))
        large = sum(t.numel() * t.element_size() for key, t in learner.state().items() if "lda" not in key)
        assert large <= needed <= 40 * large


def test_python_trains_any_learner(make_stream):
    trained = tosca_cache.train(make_stream(), method="slda", options={"shrinkage": 0.1}, device="cpu")
    rows = np.concatenate([trained.stream.test(t).features for t in range(len(trained.stream))])
    assert tosca_cache.predict(trained, rows).tolist() == trained.predictions().tolist()
    assert tosca_cache.evaluate(trained)["last_accuracy"] > 0
    assert "slda" in repr(trained)
    with pytest.raises(tosca_cache.ToscaError, match="has no modules"):
        tosca_cache.route(trained, rows)
    with pytest.raises(tosca_cache.ToscaError, match="did you mean 'shrinkage'"):
        tosca_cache.train(make_stream(), method="slda", options={"shrinking": 0.1})
