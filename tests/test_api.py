"""The Python interface: each step in one call, and what notebooks show of it: reprs, tables, charts, DataFrames."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import tosca as command

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


@pytest.mark.parametrize("room", [0, 1])
def test_the_same_seed_gives_the_same_numbers_also_where_memory_is_short(make_stream, trained, monkeypatch, room):
    """room: of how many tasks' test rows may be kept what a module makes of them, a time."""
    size = 4 * trained.stream.dim * trained.outcome.counts.max()  # float32
    free = 4 * room * size  # a fourth may be used
    monkeypatch.setattr("tosca_cache.learners.tosca.free_memory", lambda device: free)
    again = tosca.train(make_stream(), seed=4, device="cpu", router="sample", **QUICK)
    kept = [sum(map(len, test_set.adapted)) for test_set in (again.outcome.test_set, trained.outcome.test_set)]
    assert room <= kept[0] <= 3 * room and kept[1] == 9, "three tasks, each with three modules"
    assert np.array_equal(again.outcome.R, trained.outcome.R, equal_nan=True)
    assert np.array_equal(again.predictions(), trained.predictions())
    assert tosca.evaluate(again)["last_accuracy_by_condition"] == tosca.evaluate(trained)["last_accuracy_by_condition"]


def test_reporter_hears_every_epoch_and_task(make_stream, trained):
    heard = []

    class Ears:
        def on_seed(self, *told):
            heard.append(("seed", *told))

        def on_epoch(self, *told):
            heard.append(("epoch", *told))

        def on_task(self, task, row):
            heard.append(("task", task, len(row)))

    other = tosca.train(make_stream(), seed=5, device="cpu", reporter=Ears(), **QUICK)
    assert heard[:5] == [("seed", 5, 3, 3), ("epoch", 0, 0), ("epoch", 0, 1), ("epoch", 0, 2), ("task", 0, 1)]
    assert len(heard) == 1 + 3 * 4
    assert not np.array_equal(other.learner.losses[0], trained.learner.losses[0]), "another seed"


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
        (lambda: tosca.train(trained.stream, reporter=print), "on_seed"),
        (lambda: tosca.train(store), r"tosca.task_stream\(store"),
        (tosca.train, "missing a required argument"),
        (lambda: tosca.task_stream(str(store.path), increment=2), r"tosca.open_store\(path\)"),
        (lambda: tosca.task_stream(store, incrment=2), "did you mean 'increment'"),
        (lambda: tosca.task_stream(store, increment="2"), "increment cannot be '2'"),
        (lambda: tosca.task_stream(store, increment=2, shuffle=1), "shuffle cannot be 1"),
        (lambda: tosca.task_stream(store, task_sizes="2,4"), "task_sizes cannot be '2,4'"),
        (lambda: tosca.open_store(None), "path cannot be None"),
        (lambda: tosca.open_store("n" * 4400), "too long|does not exist"),
        (lambda: tosca.compare(store, "simplecill", increment=2), "simplecil"),
        (lambda: tosca.compare(store, "simplecil", incrment=2), "Did you mean 'increment'"),
        (lambda: tosca.compare(store, "simplecil", options={"simplecil": 3}, increment=2), "simplecil cannot be 3"),
        (lambda: tosca.compare(store, "slda", options={"x": {}}, increment=2), "unknown method 'x'"),
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


EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def made(make_store, tmp_path_factory):
    """A store, and what came of it."""
    folder, quick = tmp_path_factory.mktemp("made"), {"epochs": 1, "engine": "torch", "device": "cpu"}
    store = make_store(folder / "shapes", dataset="photos <b>&", classes=60, dim=4, views=1)
    trained = tosca.train(tosca.task_stream(store, increment=20), **quick)
    compared = tosca.compare(store, ["lda", "nmc"], seeds=2, increment=20, ledger=folder / "compare.sqlite")
    asked = {"ledger": folder / "sweep.sqlite", "report_seeds": [1, 2], "increment": 20}
    found = tosca.sweep(store, {"l1": [0.0, 1e-4]}, **asked, **quick)
    return folder, store, trained, compared, found


def test_objects_are_shown_in_one_line_and_a_small_table(made):
    _, store, trained, table, found = made
    stream, checked, report = trained.stream, tosca.verify_store(store.path), tosca.evaluate(trained)
    shown = [store, store.manifest, store.manifest.plan, stream, checked, report, table, found, trained]
    shown += [trained.outcome, trained.outcome.predictions[-1], stream.task(0), stream.task(0).train]
    for one in shown:
        assert "\n" not in repr(one) and len(repr(one)) < 500, type(one)
    for words in ("photos <b>&", "train=540", "test=300", "classes=60", "dim=4", "toy"):
        assert words in repr(store)
    for one in (store, stream, checked, report, table, found, trained):
        html = one._repr_html_()
        assert html.startswith("<table>") and html.endswith("</table>") and "<b>" not in html
    assert "photos &lt;b&gt;&amp;" in store._repr_html_() and "class-59" in stream._repr_html_()
    assert json.loads(json.dumps(table)) == table and isinstance(table, dict)


def chart_rows(chart):
    """The rows of every part of a chart, as JSON texts are read by Vega."""
    return [json.loads(text) for text in chart.to_dict()["datasets"].values()]


def test_plots_show_the_numbers_of_what_they_are_of(made):
    pytest.importorskip("altair")
    _, store, trained, compared, found = made
    (curve,), R = chart_rows(trained.plot()), trained.outcome.R
    assert curve[0]["accuracy"] == R[0, 0] and len(curve) == 3
    (matrix,) = chart_rows(tosca.evaluate(trained).plot())
    assert {(row["after"], row["task"]): row["accuracy"] for row in matrix} == {
        (i + 1, j + 1): R[i, j] for i in range(3) for j in range(i + 1)
    }
    (lines,) = chart_rows(compared.plot())
    for row in compared["rows"]:
        last = [one["accuracy"] for one in lines if one["name"] == row["method"]][-1]
        assert last == pytest.approx(row["values"]["last_accuracy"]["mean"])
    (settings,) = chart_rows(found.plot())
    best = [s.mean for s in found.top] + [f.metrics["last_accuracy"][0] for f in found.finals]
    assert [row["value"] for row in settings] == best
    (points,) = chart_rows(store.plot())
    assert {(p["image"], p["class"]) for p in points if p["split"] == "test"} == {
        (path, store.class_names[c]) for path, c in zip(store.paths("test"), store.labels("test"), strict=True)
    }
    with pytest.raises(tosca.ToscaError, match="coloured by"):
        store.plot(by="colour")


def test_names_stay_text_in_the_pages_that_hold_a_chart(tmp_path):
    pytest.importorskip("altair")
    labels = np.repeat(np.arange(3), 10)
    features = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32) + labels[:, None]
    how = {"class_names": [EVIL, "b", "c"], "split": np.arange(30) % 3 == 0, "root": tmp_path}
    store = tosca.import_features(features, labels, dataset="evil", **how)
    chart = store.plot()
    assert {row["class"] for row in chart_rows(chart)[0]} == {EVIL, "b", "c"}
    assert EVIL not in chart.to_html() and EVIL not in str(chart._repr_mimebundle_())
    assert EVIL not in store._repr_html_()


def test_without_the_packages_it_is_said_what_to_install(made, monkeypatch):
    folder, store, trained, compared, found = made
    from tosca_cache import plots

    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    for asked in (trained.plot, compared.plot, found.plot, store.plot, lambda: tosca.runs(folder)):
        with pytest.raises(tosca.ToscaError, match=r"tosca-cache\[notebook\]"):
            asked()


def test_a_ledger_is_a_table_of_its_cells(made):
    pytest.importorskip("pandas")
    folder, _, _, compared, found = made
    cells = tosca.ledger(folder / "sweep.sqlite")
    assert len(cells) == found.cells + 4 and set(cells["state"]) == {"done"}
    searched = cells[[select["rows"] == "val" for select in cells["select"]]]
    assert searched.groupby("l1")["last_accuracy"].mean().max() == pytest.approx(found.top[0].mean)
    cells = tosca.ledger(folder / "compare.sqlite")
    means = cells.groupby("method")["last_accuracy"].mean()
    for row in compared["rows"]:
        assert means[row["method"]] == pytest.approx(row["values"]["last_accuracy"]["mean"])
    with pytest.raises(tosca.ToscaError):
        tosca.ledger(folder / "none.sqlite")


def test_runs_are_a_table_of_their_seeds(make_store, tmp_path):
    pytest.importorskip("pandas")
    make_store(tmp_path / "shapes", classes=6)
    asked = ("train", "--store", tmp_path / "shapes", "--runs", tmp_path / "runs", "--increment", 2, "--epochs", 1)
    for l1 in ("0", "1e-3"):
        command(*asked, "--l1", l1, "--seed", "1,2", "--no-report")
    table = tosca.runs(tmp_path / "runs")
    assert list(table["seed"]) == [1, 2, 1, 2] and list(table["l1"]) == [0, 0, 1e-3, 1e-3]
    for name, rows_of in table.groupby("run"):
        metrics = json.loads((tmp_path / "runs" / name / "metrics.json").read_text())
        assert rows_of["last_accuracy"].mean() == pytest.approx(metrics["last_accuracy"])
        (tmp_path / "runs" / name / "metrics.json").write_text("{}")
    with pytest.warns(UserWarning, match="left out"):
        assert tosca.runs(tmp_path / "runs").empty
    with pytest.raises(tosca.ToscaError, match="no folder"):
        tosca.runs(tmp_path / "nothing")


def test_the_example_of_a_grid_search(make_store, tmp_path, monkeypatch, capsys):
    store = make_store(tmp_path / "store")
    script = Path(__file__).parents[1] / "docs" / "examples" / "grid_search.py"
    monkeypatch.setattr(sys, "argv", [script.name, str(store.path), str(tmp_path / "grid.sqlite")])
    runpy.run_path(str(script), run_name="__main__")
    first = capsys.readouterr().out
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out == first
    assert first.startswith("36 cells, chosen on 20% of each class's train rows held out")
    assert "chosen: last accuracy" in first
    assert (tmp_path / "grid.report.json").is_file() and (tmp_path / "grid.best.toml").is_file()
