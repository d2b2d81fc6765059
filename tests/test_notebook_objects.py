"""What notebooks get: charts of `plot()`, tables of `_repr_html_`, and DataFrames of runs and ledgers."""

import json

import numpy as np
import pytest
from commands import tosca as command

import tosca_cache as tosca

EVIL = "</script><script>alert(1)</script>"
QUICK = {"epochs": 1, "engine": "torch", "device": "cpu"}


def rows(chart):
    """The rows of every part of a chart, as JSON texts are read by Vega."""
    return [json.loads(text) for text in chart.to_dict()["datasets"].values()]


@pytest.fixture(scope="module")
def made(make_store, tmp_path_factory):
    """A store, and what came of it."""
    folder = tmp_path_factory.mktemp("made")
    store = make_store(folder / "shapes", classes=6)
    trained = tosca.train(tosca.task_stream(store, increment=2), **QUICK)
    compared = tosca.compare(store, ["lda", "nmc"], seeds=2, increment=2, ledger=folder / "compare.sqlite")
    found = tosca.sweep(
        store, {"l1": [0.0, 1e-4]}, ledger=folder / "sweep.sqlite", report_seeds=[1, 2], increment=2, **QUICK
    )
    return folder, store, trained, compared, found


def test_plots_show_the_numbers_of_what_they_are_of(made):
    pytest.importorskip("altair")
    _, store, trained, compared, found = made
    (curve,), R = rows(trained.plot()), trained.outcome.R
    assert curve[0]["accuracy"] == R[0, 0] and len(curve) == 3
    (matrix,) = rows(tosca.evaluate(trained).plot())
    assert {(row["after"], row["task"]): row["accuracy"] for row in matrix} == {
        (i + 1, j + 1): R[i, j] for i in range(3) for j in range(i + 1)
    }
    (lines,) = rows(compared.plot())
    for row in compared["rows"]:
        last = [one["accuracy"] for one in lines if one["name"] == row["method"]][-1]
        assert last == pytest.approx(row["values"]["last_accuracy"]["mean"])
    (settings,) = rows(found.plot())
    best = [s.mean for s in found.top] + [f.metrics["last_accuracy"][0] for f in found.finals]
    assert [row["value"] for row in settings] == best
    (points,) = rows(store.plot())
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
    assert {row["class"] for row in rows(chart)[0]} == {EVIL, "b", "c"}
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
