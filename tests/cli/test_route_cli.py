"""`tosca route` on real runs: what was measured while training is found again, without training."""

import json
import shutil

import pytest
from commands import tosca

from tosca_cache.routing import ROUTERS

SHORT = ["--increment", "2", "--epochs", "3", "--batch-size", "8", "--mlp-ratio", "4", "--se-ratio", "4"]


@pytest.fixture(scope="module")
def place(make_store, tmp_path_factory):
    """A folder with a store and a run of two seeds; never written to."""
    place = tmp_path_factory.mktemp("route")
    make_store(place / "store", noise=2.0, test_views=2)
    where = ("--store", place / "store", "--runs", place / "runs", "--seed", "1,2", "--engine", "torch")
    tosca("train", *where, *SHORT, code=0)
    return place


@pytest.fixture
def run(place):
    return next((place / "runs").iterdir())


def measured(run):
    return json.loads((run / "metrics.json").read_text())["seeds"]


def test_the_runs_own_numbers_are_found_again(run):
    result = tosca("route", run, "--json", code=0)
    found, seeds = json.loads(result.output), measured(run)
    assert [entry["seed"] for entry in found] == [1, 2]
    for entry in found:
        seed = seeds[str(entry["seed"])]
        assert set(entry["routers"]) == set(ROUTERS)
        for key in ("last_accuracy", "task_identification_accuracy", "accuracy_given_right_task"):
            assert entry["routers"]["sample"][key] == pytest.approx(seed[key])
        conditions = seed["last_accuracy_by_condition"]
        assert entry["conditions"]["per_sample"] == pytest.approx(conditions["per_sample"])
        assert entry["conditions"]["oracle"] == pytest.approx(conditions["oracle"])
        assert entry["conditions"]["batch_48_in_order"] == pytest.approx(conditions["batch_in_order"])
        assert entry["conditions"]["batch_48_shuffled"] == pytest.approx(conditions["batch_shuffled"])
        assert {"batch_8_in_order", "batch_256_shuffled"} < entry["conditions"].keys()
    routed = tosca("route", run, "--routers", "sample,lda", code=0)
    assert "leaks the task" in routed.output and "lda" in routed.output
    assert "same modules behind each router, percent, 2 seeds" in routed.output


def test_a_router_gives_what_training_with_it_gives(run, place, tmp_path):
    """Routers do not change what modules learn."""
    other = tmp_path / "other"
    where = ("--store", place / "store", "--runs", other, "--seed", "1,2", "--engine", "torch")
    tosca("train", *where, *SHORT, "--router", "lda", code=0)
    seeds = measured(next(other.iterdir()))
    for entry in json.loads(tosca("route", run, "--routers", "lda", "--json").output):
        assert entry["routers"]["lda"]["last_accuracy"] == pytest.approx(seeds[str(entry["seed"])]["last_accuracy"])


def test_a_store_without_test_views_has_all_other_routers(make_store, tmp_path):
    make_store(tmp_path / "store")
    tosca("train", "--store", tmp_path / "store", "--runs", tmp_path / "runs", "--seed", "1", *SHORT, code=0)
    run = next((tmp_path / "runs").iterdir())
    result = tosca("route", run, "--json", code=0)
    assert set(json.loads(result.stdout)[0]["routers"]) == set(ROUTERS) - {"contracon"}
    assert "left out: contracon" in result.stderr
    refused = tosca("route", run, "--routers", "contracon", code=2)
    assert "--test-views" in refused.output


def test_a_moved_store_is_given_by_hand(run, place, make_store, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    path = moved / "provenance.json"
    path.write_text(path.read_text().replace(str(place / "store"), str(tmp_path / "store")))
    tosca("route", moved, "--routers", "sample", code=1)
    tosca("route", moved, "--routers", "sample", "--store", place / "store", code=0)
    make_store(tmp_path / "foreign", dataset="others")
    refused = tosca("route", moved, "--routers", "sample", "--store", tmp_path / "foreign", code=1)
    assert "not the store of the run" in refused.output


def test_wrong_requests_and_damaged_runs_are_named(run, tmp_path):
    assert "unknown router 'nonsense'" in tosca("route", run, "--routers", "sample,nonsense", code=2).output
    for name in ("provenance.json", "seed-2/learner.safetensors"):
        damaged = shutil.copytree(run, tmp_path / name.partition(".")[0])
        (damaged / name).write_bytes(b"{")
        assert "train the run again" in tosca("route", damaged, code=1).output
