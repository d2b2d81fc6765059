"""The Python interface: train, route and evaluate, each in one call."""

import json

import numpy as np
import pytest

import tosca_cache as tosca
from tosca_cache.errors import ConfigError, UsageError

QUICK = {"epochs": 3, "batch_size": 8, "mlp_ratio": 4, "se_ratio": 4}


@pytest.fixture
def trained(make_stream):
    return tosca.train(make_stream(), seed=4, device="cpu", router="sample", **QUICK)


def test_the_recommended_router_is_the_default(make_stream):
    trained = tosca.train(make_stream(), seed=4, device="cpu", **QUICK)
    assert trained.method.router.name == "auto"
    rows = np.concatenate([trained.stream.test(t).features for t in range(len(trained.stream))])
    labels, modules = tosca.route(trained, rows)
    assert np.array_equal(tosca.route(trained, rows, router="auto")[0], labels)
    assert np.array_equal(modules, trained.outcome.predictions[-1].modules)


def test_evaluate_gives_plain_json_with_full_names(trained):
    report = tosca.evaluate(trained)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    R = np.array(report["R"], dtype=float)
    assert R.shape == (3, 3)
    assert np.isnan(R[0, 1:]).all()
    assert not np.isnan(R[np.tril_indices(3)]).any()
    counts = trained.outcome.counts
    assert report["last_accuracy"] == pytest.approx(np.average(R[-1], weights=counts))
    assert report["last_accuracy_by_condition"]["per_sample"] == pytest.approx(report["last_accuracy"])
    for name in ("average_accuracy", "forgetting", "backward_transfer", "task_identification_accuracy"):
        assert name in report


def test_route_gives_what_the_run_gave(trained):
    stream = trained.stream
    rows = np.concatenate([stream.test(t).features[:, 0] for t in range(len(stream))])
    labels, modules = tosca.route(trained, rows)
    last = trained.outcome.predictions[-1]
    assert np.array_equal(labels, last.labels)
    assert np.array_equal(modules, last.modules)
    assert np.array_equal(tosca.route(trained, rows, router="sample")[1], modules)


def test_same_seed_gives_same_r_and_other_seed_other_modules(make_stream, trained):
    again = tosca.train(make_stream(), seed=4, device="cpu", router="sample", **QUICK)
    assert np.array_equal(again.outcome.R, trained.outcome.R, equal_nan=True)
    other = tosca.train(make_stream(), seed=5, device="cpu", **QUICK)
    assert not np.array_equal(other.method.losses[0], trained.method.losses[0])


def test_reporter_hears_every_epoch_and_task(make_stream):
    heard = []

    class Ears:
        def on_seed(self, seed, tasks, epochs):
            heard.append(("seed", seed, tasks, epochs))

        def on_epoch(self, task, epoch):
            heard.append(("epoch", task, epoch))

        def on_task(self, task, row):
            heard.append(("task", task, len(row)))

    tosca.train(make_stream(), seed=4, device="cpu", reporter=Ears(), **QUICK)
    one_task = [("epoch", 0, 0), ("epoch", 0, 1), ("epoch", 0, 2), ("task", 0, 1)]
    assert heard[:5] == [("seed", 4, 3, 3), *one_task]
    assert len(heard) == 1 + 3 * 4


def test_wrong_requests(make_stream):
    stream = make_stream()
    with pytest.raises(ConfigError, match="epochs"):
        tosca.train(stream, epochs=0)
    with pytest.raises(ConfigError, match="flow"):
        tosca.train(stream, flow="none")
    with pytest.raises(UsageError, match="router"):
        tosca.train(stream, router="none")
    with pytest.raises(UsageError, match="device"):
        tosca.train(stream, device="cuda:7")
    with pytest.raises(AttributeError):
        _ = tosca.nonsense


def test_a_store_becomes_a_stream(make_store, tmp_path):
    make_store(tmp_path / "shapes")
    stream = tosca.task_stream(tosca.open_store(tmp_path / "shapes"), increment=4, seed=3)
    assert stream.sizes == [4, 2]
    assert tosca.train(stream, device="cpu", **QUICK).outcome.R.shape == (2, 2)
