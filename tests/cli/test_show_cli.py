"""`tosca show`: names that can be copied, the last run, and runs that cannot be read."""

import json

import pytest
from commands import tosca

QUICK = ("--epochs", "1", "--router", "sample")


@pytest.fixture
def runs(make_store, tmp_path):
    store = make_store(tmp_path / "store", dataset="a-rather-long-name-of-photos", classes=12)
    for increment in (3, 1):
        tosca("train", "--store", store.path, "--runs", tmp_path / "runs", "--increment", increment, *QUICK, code=0)
    return tmp_path / "runs"


def test_names_are_never_cut_and_the_last_run_has_a_name(runs):
    names = sorted(path.name for path in runs.iterdir())
    for columns in ("10", "80", "200"):
        shown = tosca("show", "--runs", runs, columns=columns).output
        assert all(name in shown for name in names) and "…" not in shown
        shown = tosca("show", "--runs", runs, columns=columns, FORCE_COLOR="1", TERM="xterm").output
        assert all(name in shown for name in names) and "…" not in shown
        assert (shown.splitlines().count(names[0]) == 1) is (columns != "200"), "a line of its own where it is narrow"
    last = tosca("show", "last", "--runs", runs)
    assert "12 tasks" in last.output and last.output == tosca("show", "latest", "--runs", runs).output
    tosca("route", "last", "--runs", runs, "--routers", "sample", code=0)


def test_many_tasks_are_summed_up_and_stand_in_the_log(make_store, tmp_path):
    store = make_store(tmp_path / "store", classes=12)
    shown = tosca("train", "--store", store.path, "--runs", tmp_path / "runs", "--increment", 1, *QUICK).output
    lines = [line for line in shown.splitlines() if "learned" in line]
    assert len(lines[9].split("accuracy by task ")[1].split()) == 10
    assert "on average" in lines[11] and "the lowest" in lines[11]
    (run,) = (tmp_path / "runs").iterdir()
    (row,) = [line for line in (run / "log.txt").read_text().splitlines() if "after task 11:" in line]
    assert len(row.split("after task 11: ")[1].split()) == 12


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"R": [["a"]]}', '{"R": 3, "seeds": []}'])
def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(runs, text):
    first, second = sorted(runs.iterdir())
    (first / "metrics.json").write_text(text)
    listed = tosca("show", "--runs", runs, code=0)
    assert second.name in listed.output
    assert f"{first.name}: metrics cannot be read" in listed.output
    shown = tosca("show", first.name, "--runs", runs, code=1)
    assert "error: " in shown.output and "Traceback" not in shown.output


def test_metrics_are_json_for_programs(runs):
    shown = tosca("show", "last", "--json", "--runs", runs)
    assert len(json.loads(shown.output)["R"]) == 12
