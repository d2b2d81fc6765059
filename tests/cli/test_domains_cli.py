"""Real images in DOMAIN/train/CLASS through extract, train --incremental domains, show, sweep and compare."""

import json

import numpy as np
import pytest
from commands import tosca
from PIL import Image

from tosca_cache.store import list_stores, open_store

QUICK = ["--epochs", "3", "--batch-size", "8", "--mlp-ratio", "4", "--se-ratio", "4", "--engine", "torch"]
DOMAINS = ("--incremental", "domains")
CLASSES = {"bright": ("left", "right", "top"), "dark": ("left", "right"), "noisy": ("left", "right", "top")}
TRAIN, TEST = 4, 3


def draw(generator, domain, name):
    """Half of an image is lit, on a ground and with a grain that depend on the domain."""
    pixels = np.full((24, 24), {"bright": 150.0, "dark": 20.0, "noisy": 80.0}[domain])
    part = {"left": np.s_[:, :12], "right": np.s_[:, 12:], "top": np.s_[:12]}[name]
    pixels[part] += 90
    pixels += generator.normal(scale=60 if domain == "noisy" else 10, size=pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny):
    """The folder of three domains, of which one lacks a class, its store, and a run of three seeds."""
    place, generator = tmp_path_factory.mktemp("domains"), np.random.default_rng(0)
    for folder in (place / "shapes" / d / s / c for d in CLASSES for c in CLASSES[d] for s in ("train", "test")):
        folder.mkdir(parents=True)
        for number in range(TRAIN if folder.parent.name == "train" else TEST):
            draw(generator, folder.parts[-3], folder.name).save(folder / f"{number}.png")
    asked = ("--dataset", place / "shapes", "--root", place / "cache", "--views", 2, "--test-views", 2)
    tosca("extract", *asked, *tiny, code=0)
    train(place, *DOMAINS, "--seed", "1,2,3", code=0)
    return place


def train(place, *arguments, runs="runs", **how):
    return tosca("train", "--store", store_of(place), "--runs", place / runs, *QUICK, *arguments, **how)


def store_of(place):
    (summary,) = list_stores(place / "cache")
    return summary.path


def only_run(runs):
    (run,) = (path for path in runs.iterdir() if path.is_dir())
    return run, json.loads((run / "metrics.json").read_text())


def test_a_run_of_domains(place):
    (run, metrics), store = only_run(place / "runs"), open_store(store_of(place))
    assert metrics["incremental"] == "domains" and store.class_names == ("left", "right", "top")
    for seed, values in metrics["seeds"].items():
        order = [("bright", "dark", "noisy")[d] for d in np.random.RandomState(int(seed)).permutation(3)]
        assert values["domains"] == order
        assert values["task_sizes"] == [len(CLASSES[domain]) for domain in order]
        assert values["test_rows"] == [TEST * len(CLASSES[domain]) for domain in order]
        with np.load(run / f"seed-{seed}" / "predictions.npz") as saved:
            right = saved["prediction_after_2"] == saved["label"]
            np.testing.assert_array_equal(saved["class_order"][saved["label"]], store.labels("test")[saved["row"]])
            domains = np.array(store.domain_names)[store.domains("test")[saved["row"]]]
            assert domains.tolist() == [order[t] for t in saved["task"]]
            assert values["R"][2] == pytest.approx([100 * right[saved["task"] == j].mean() for j in range(3)])
    same = len({tuple(values["task_sizes"]) for values in metrics["seeds"].values()}) == 1
    assert (metrics["task_sizes"] is None) != same
    text = (run / "config.toml").read_text()
    assert 'incremental = "domains"' in text and "increment =" not in text


def test_a_run_says_that_tasks_are_domains_and_the_same_store_can_bring_new_classes(place):
    run, _ = only_run(place / "runs")
    assert "shapes: 3 domains, one a task" in " ".join(tosca("show", run).output.split())
    alone = train(place, *DOMAINS, "--seed", "2", runs="alone", code=0)
    assert all(name in alone.output for name in CLASSES), "a single seed's columns are its domains"
    again = tosca("train", "--config", run / "config.toml", "--store", store_of(place), "--show-config")
    assert "each domain is a task" in again.output
    train(place, "--increment", "1", "--seed", "1", runs="classes", code=0)
    _, metrics = only_run(place / "classes")
    assert (metrics["incremental"], metrics["task_sizes"]) == ("classes", [1, 1, 1])
    assert "domains" not in metrics["seeds"]["1"]


def test_a_search_over_domains(place, tmp_path):
    command = ("sweep", "--store", store_of(place), *DOMAINS, "--runs", tmp_path, "--seeds", "1,2,3")
    command += ("--set", "lr=0.01,0.05", "--set", "epochs=2", "--set", "mlp_ratio=4", "--set", "se_ratio=4")
    command += ("--report-seeds", "1,2", "--engine", "torch")
    planned = tosca(*command, "--plan", code=0).output
    assert all(words in planned for words in ("2 settings, 6 cells", "classes of each domain", "incremental domains"))
    assert "each class of each domain" in " ".join(tosca(*command, code=0).output.split())
    best = tmp_path / "shapes-sweep.best.toml"
    tosca("train", "--config", best, "--store", store_of(place), "--runs", tmp_path, code=0)
    report = json.loads((tmp_path / "shapes-sweep.report.json").read_text())["report"][0]
    _, metrics = only_run(tmp_path)
    assert metrics["last_accuracy"] == pytest.approx(report["last_accuracy"]["mean"], abs=1e-3)


def test_a_table_of_learners_over_domains(place, tmp_path):
    command = ("compare", "--store", store_of(place), "--runs", tmp_path, "--methods", "tosca,pool,simplecil", *QUICK)
    asked, (_, metrics) = (*DOMAINS, "--seeds", "1,2,3"), only_run(place / "runs")
    assert "shapes: 3 domains, one a task" in " ".join(tosca(*command, *asked, code=0).output.split())
    rows = {row["method"]: row["seeds"] for row in json.loads(tosca(*command, *asked, "--json").stdout)["rows"]}
    for seed, values in metrics["seeds"].items():
        conditions = values["last_accuracy_by_condition"]
        expected = {"tosca": values["last_accuracy"], "pool": conditions["pool"]}
        expected["simplecil"] = conditions["nearest_class_mean"]
        assert {name: rows[name][seed]["last_accuracy"] for name in expected} == pytest.approx(expected)
    again = tosca(*command, "--seeds", "1,2,3", "--increment", "1")
    assert "3 tasks, 1 classes first" in " ".join(again.output.split()), "in the same ledger, and another table"
