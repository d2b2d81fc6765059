"""The Python interface: train, route and evaluate, each in one call."""

import json

import numpy as np
import pytest

import tosca_cache as tosca

QUICK = {"epochs": 3, "batch_size": 8, "mlp_ratio": 4, "se_ratio": 4}


@pytest.fixture(scope="module")
def trained(make_stream):
    return tosca.train(make_stream(), seed=4, device="cpu", **QUICK)


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


def test_route_gives_what_the_run_gave_a_sample_at_a_time(trained):
    stream, last = trained.stream, trained.outcome.predictions[-1]
    assert trained.learner.router.name == "sample", "the default"
    rows = np.concatenate([stream.test(t).features for t in range(len(stream))])
    labels, modules = tosca.route(trained, rows[:, 0], labels="positions")
    assert np.array_equal(labels, last.labels) and np.array_equal(modules, last.modules)
    names, original = (tosca.route(trained, rows, labels=kind)[0] for kind in ("names", "original"))
    assert list(names) == [f"class {c}" for c in original] == [stream.class_names[c] for c in labels]
    assert list(tosca.route(trained, rows)[0]) == list(names), "names are what is told unless asked otherwise"
    assert np.array_equal(names, trained.predictions())
    assert not np.array_equal(original, labels), "the class order is shuffled"
    assert np.mean(names == trained.targets()) == pytest.approx(tosca.evaluate(trained)["last_accuracy"] / 100)
    assert len(trained.predictions(0)) == trained.outcome.counts[0]
    assert [len(found) for found in tosca.route(trained, rows[:0])] == [0, 0]
    assert np.array_equal(tosca.route(trained, rows, router="sample")[1], modules)


def test_same_seed_gives_same_r_and_other_seed_other_modules(make_stream, trained):
    again = tosca.train(make_stream(), seed=4, device="cpu", router="sample", **QUICK)
    assert np.array_equal(again.outcome.R, trained.outcome.R, equal_nan=True)
    other = tosca.train(make_stream(), seed=5, device="cpu", **QUICK)
    assert not np.array_equal(other.learner.losses[0], trained.learner.losses[0])


@pytest.mark.parametrize("room", [0, 1])
def test_where_memory_is_short_test_rows_are_adapted_anew(make_stream, trained, monkeypatch, room):
    """room: of how many tasks' test rows may be kept what a module makes of them, a time; the numbers are the same."""
    size = 4 * trained.stream.dim * trained.outcome.counts.max()  # float32
    free = 4 * room * size  # a fourth may be used
    monkeypatch.setattr("tosca_cache.learners.tosca.free_memory", lambda device: free)
    again = tosca.train(make_stream(), seed=4, device="cpu", router="sample", **QUICK)
    kept = [sum(map(len, test_set.adapted)) for test_set in (again.outcome.test_set, trained.outcome.test_set)]
    assert room <= kept[0] <= 3 * room and kept[1] == 9, "three tasks, each with three modules"
    assert np.array_equal(again.outcome.R, trained.outcome.R, equal_nan=True)
    assert np.array_equal(again.predictions(), trained.predictions())
    assert tosca.evaluate(again)["last_accuracy_by_condition"] == tosca.evaluate(trained)["last_accuracy_by_condition"]


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


def test_wrong_arguments_are_refused_at_the_door(trained, make_store, tmp_path):
    store, rows = make_store(tmp_path / "shapes"), np.zeros((3, 12), np.float32)
    broken = rows.copy()
    broken[1, 4] = np.nan
    for call, words in (
        (lambda: tosca.route(trained, rows[:, :5]), "5 numbers each, and the modules were trained on 12"),
        (lambda: tosca.route(trained, rows[0]), r"one row is features\[None\]"),
        (lambda: tosca.route(trained, broken), "1 of 3 rows hold NaN.*row 1"),
        (lambda: tosca.route(trained, rows.astype(str)), "of type <U"),
        (lambda: tosca.route(trained, [[1.0], [1.0, 2.0]]), "features are no array"),
        (lambda: tosca.route(trained, rows, labels="name"), "nearest is names"),
        (lambda: trained.predictions(3), "no task 3"),
        (lambda: trained.stream.task(-1), "no task -1"),
        (lambda: tosca.route(trained, rows, router="sampel"), "sample"),
        (lambda: tosca.route(trained.stream, rows), r"tosca.train\(stream\)"),
        (lambda: tosca.train(trained.stream, device="cuda:7"), "device"),
        (lambda: tosca.train(trained.stream, lr="a"), "lr cannot be 'a'"),
        (lambda: tosca.train(trained.stream, lrr=1), "did you mean 'lr'"),
        (lambda: tosca.train(trained.stream, seed=-1), "seed cannot be -1"),
        (lambda: tosca.train(trained.stream, reporter=print), "on_seed"),
        (lambda: tosca.train(store), r"tosca.task_stream\(store"),
        (tosca.train, "missing a required argument"),
        (lambda: tosca.evaluate(None), "trained is None"),
        (lambda: tosca.task_stream(str(store.path), increment=2), r"tosca.open_store\(path\)"),
        (lambda: tosca.task_stream(store, incrment=2), "did you mean 'increment'"),
        (lambda: tosca.task_stream(store, increment="2"), "increment cannot be '2'"),
        (lambda: tosca.task_stream(store, increment=2, shuffle=1), "shuffle cannot be 1"),
        (lambda: tosca.task_stream(store, task_sizes="2,4"), "task_sizes cannot be '2,4'"),
        (lambda: tosca.open_store(None), "path cannot be None"),
        (lambda: tosca.open_store("n" * 4400), "too long|does not exist"),
        (lambda: tosca.compare(store, "simplecill", increment=2), "simplecil"),
        (lambda: tosca.compare(store, 3), "methods cannot be 3"),
        (lambda: tosca.compare(store, "simplecil", seeds="a", increment=2), "seeds cannot be 'a'"),
        (lambda: tosca.compare(store, "simplecil", options={"simplecil": 3}, increment=2), "simplecil cannot be 3"),
        (lambda: tosca.compare(store, "slda", options={"x": {}}, increment=2), "unknown method 'x'"),
        (
            lambda: tosca.compare(store, "ranpac", options={"ranpac": {"expansion": 0}}, increment=2),
            "expansion cannot be 0",
        ),
        (lambda: tosca.sweep(store, {"lr": [0.1]}, ledger=tmp_path / "l", seeds=["a"]), "seeds cannot be"),
        (lambda: tosca.sweep(store, 3, ledger=tmp_path / "l"), "space"),
        (lambda: tosca.sweep(store, {"lr": [0.1]}, ledger=tmp_path / "l", search={"trails": 3}), "trials"),
        (lambda: tosca.sweep(store, {"lr": [0.1]}, ledger=tmp_path / "l", jobs=0), "jobs cannot be 0"),
        (lambda: tosca.import_features(rows, [0, 1, 1], dataset=3), "dataset cannot be 3"),
    ):
        with pytest.raises(tosca.ToscaError, match=words) as refused:
            call()
        assert refused.value.remedy
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shapes"]
    with pytest.raises(AttributeError):
        _ = tosca.nonsense


def test_a_store_becomes_a_stream_and_numbers_of_numpy_are_numbers(make_store, tmp_path):
    store = make_store(tmp_path / "shapes")
    assert tosca.task_stream(tosca.open_store(store.path), increment=4, seed=3).sizes == [4, 2]
    stream = tosca.task_stream(store, increment=np.int64(3), seed=np.int64(2))
    trained = tosca.train(stream, epochs=np.int64(1), lr=np.float32(0.5), device="cpu")
    assert trained.seed == 1993 and trained.outcome.R.shape == (2, 2)
    table = tosca.compare(store, ("simplecil",), seeds=np.array([1, 2]), increment=np.int64(3))
    assert table["seeds"] == [1, 2]


def test_objects_are_shown_in_one_line_and_a_small_table(trained, make_store, tmp_path):
    store = make_store(tmp_path / "shapes", dataset="photos <b>&", classes=60, dim=4, views=1)
    stream, checked = tosca.task_stream(store, increment=20), tosca.verify_store(store.path)
    report = tosca.evaluate(trained)
    table = tosca.compare(store, ["simplecil"], seeds=1, increment=20)
    found = tosca.sweep(store, {"lr": [0.1]}, ledger=tmp_path / "l.sqlite", report_seeds=[1], increment=20, epochs=1)
    last = trained.outcome.predictions[-1]
    shown = [store, store.manifest, store.manifest.plan, stream, checked, report, table, found, trained]
    shown += [trained.outcome, last, stream.task(0), stream.task(0).train]
    for one in shown:
        assert "\n" not in repr(one) and len(repr(one)) < 500, type(one)
    for words in ("photos <b>&", "train=540", "test=300", "classes=60", "dim=4", "toy"):
        assert words in repr(store)
    for one in (store, stream, checked, report, table, found, trained):
        html = one._repr_html_()
        assert html.startswith("<table>") and html.endswith("</table>") and "<b>" not in html
    assert "photos &lt;b&gt;&amp;" in store._repr_html_() and "class-59" in stream._repr_html_()
    assert json.loads(json.dumps(table)) == table and isinstance(table, dict)
