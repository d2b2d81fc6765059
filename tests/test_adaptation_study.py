"""The studies: their pages say what was measured; that of adaptation runs and goes on, and chooses on held-out rows."""

import importlib
import json
from pathlib import Path

import pytest

from tosca_cache.learners.pool import Pool
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.routing import ROUTERS
from tosca_cache.store import open_store

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(benchmark_script):
    return benchmark_script("adaptation_study")


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


def test_the_variant_is_chosen_on_held_out_rows_alone(study):
    forms = {"pool": 50.0, "lda": 40.0, "class means": 60.5}
    test = forms | {"arm|a": 90.0, "arm|b": 60.0, "seconds": 1.0}
    cells = {"val": forms | {"arm|a": 10.0, "arm|b": 20.0, "seconds": 1.0}}
    cells |= {str(seed): test for seed in study.SEEDS}
    found = importlib.import_module("adaptation_tables").differences({"all-rows--x": {"cells": cells}}, "all-rows--x")
    assert found["arm"] == (60.0, 10.0, 0.0, False)  # better than the pool, and not than class means
