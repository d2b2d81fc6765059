"""`tosca run`: from an address to a page; a plan that does nothing; what is finished is skipped."""

import json

import pytest
from archive_help import tree, zipped
from commands import tosca
from file_server import serving

from tosca_cache.runs.directory import list_runs

BIRDS = zipped(tree(train=4, test=3, classes=("ant", "bee", "cat", "dog")))


@pytest.fixture
def run(tmp_path):
    """Runs the command on an archive at an address; `run.server` is what serves it, `run.root` where all is made."""
    with serving({"sets/birds.zip": BIRDS}) as server:

        def call(*options, code=0):
            places = ("--data-root", tmp_path / "data", "--root", tmp_path / "stores", "--runs", tmp_path / "runs")
            how = ("--backbone", "vit_nano", "--views", 1, "--increment", 2, "--seed", "1993")
            return tosca("run", "--dataset", f"{server.address}/sets/birds.zip", *how, *places, *options, code=code)

        call.server, call.root = server, tmp_path
        yield call


def test_from_an_address_to_a_page_and_again(run):
    """A plan does nothing; what is finished is skipped."""
    shown = run("--plan", "--sweep", "--compare").output
    assert all(f": tosca {step} " in shown for step in ("fetch", "extract", "sweep", "train", "compare"))
    assert list(run.root.iterdir()) == [] and run.server.requests == []
    shown = run("--compare").output
    assert "nobody states a checksum" in shown
    (made,) = list_runs(run.root / "runs")
    metrics = json.loads((made / "metrics.json").read_text())
    assert metrics["dataset"] == "birds" and metrics["task_sizes"] == [2, 2]
    assert (run.root / "runs" / "birds-run.html").is_file()
    assert "5 cells, 0 of them finished; about" in shown
    asked = len(run.server.requests)
    again = run("--compare").output
    assert "all 5 cells are finished" in again
    assert again.count("here already") == 2 and f"made already: {made}" in again
    assert list_runs(run.root / "runs") == [made] and len(run.server.requests) == asked
    assert "tosca, seeds 7, about" in run("--plan", "--seed", "7").output
    run.server.status = 404
    failed = run("--data-root", run.root / "other", code=1).output
    assert "404" in failed and "step 2" not in failed


def test_a_search_decides_what_is_trained(run):
    run("--sweep")
    best = run.root / "runs" / "birds-sweep.best.toml"
    (made,) = list_runs(run.root / "runs")
    trained, chosen = ((p.read_text().split("lr = ")[1].split()[0]) for p in (made / "config.toml", best))
    assert trained == chosen and "increment = 2" in best.read_text()
    assert "made already" in run("--sweep").output


def test_an_adapted_backbone_is_what_is_extracted_with(run, monkeypatch):
    monkeypatch.chdir(run.root)
    assert "step 2 of 4: tosca adapt" in run("--adapt", "--plan").output
    shown = run("--adapt").output
    (adapted,) = (run.root / "adapted").glob("birds-*")
    assert f"--backbone adapted/{adapted.name}" in shown
    assert "at most 20 epochs over about 8 train images of the first task, about" in shown
    (made,) = list_runs(run.root / "runs")
    store = json.loads((made / "provenance.json").read_text())["store"]["specification"]
    assert store["backbone"]["adapted"]
    again = run("--adapt").output
    assert again.count("here already") == 3 and "made already" in again


def test_ones_own_folder_needs_no_fetching(tmp_path):
    for path, data in tree(folder="photos").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    shown = tosca("run", "--dataset", tmp_path / "photos", "--backbone", "vit_nano", "--plan", code=0).output
    assert "your own images" in shown and "10 images" in shown and "step 3 of 3: tosca train --dataset photos" in shown
