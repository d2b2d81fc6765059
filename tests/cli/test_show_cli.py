"""`tosca show`: names that can be copied, the last run, and runs that cannot be read."""

import json
import shutil
from pathlib import Path
from unittest.mock import ANY

import pytest
from commands import tosca

QUICK = ("--epochs", "1", "--router", "sample")


@pytest.fixture(scope="module")
def trained(make_store, tmp_path_factory):
    """A folder with two runs, and what the command of the second printed."""
    folder = tmp_path_factory.mktemp("trained")
    make_store(folder / "store", dataset="a-rather-long-name-of-photos", classes=12)
    for increment in (3, 1):
        asked = ("--store", folder / "store", "--runs", folder / "runs", "--increment", increment)
        printed = tosca("train", *asked, *QUICK, code=0).output
    return folder / "runs", printed


@pytest.fixture
def runs(trained, tmp_path):
    return Path(shutil.copytree(trained[0], tmp_path / "runs"))


def test_names_are_never_cut_and_the_last_run_has_a_name(runs):
    names = sorted(path.name for path in runs.iterdir())
    for columns in ("10", "80", "200"):
        shown = tosca("show", "--runs", runs, columns=columns).output
        assert all(name in shown for name in names) and "…" not in shown
        shown = tosca("show", "--runs", runs, columns=columns, FORCE_COLOR="1", TERM="xterm").output
        assert all(name in shown for name in names) and "…" not in shown
    last = tosca("show", "last", "--runs", runs)
    assert "12 tasks" in last.output and last.output == tosca("show", "latest", "--runs", runs).output
    assert len(json.loads(tosca("show", "last", "--json", "--runs", runs).output)["R"]) == 12
    tosca("route", "last", "--runs", runs, "--routers", "sample", code=0)


def test_many_tasks_are_summed_up_and_stand_in_the_log(trained):
    runs, printed = trained
    lines = [line for line in printed.splitlines() if "learned" in line]
    assert len(lines[9].split("accuracy by task ")[1].split()) == 10
    assert "on average" in lines[11] and "the lowest" in lines[11]
    (row,) = [line for path in runs.glob("*/log.txt") for line in path.open() if "after task 11:" in line]
    assert len(row.split("after task 11: ")[1].split()) == 12


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(runs):
    assert json.loads(tosca("show", "--json", "--runs", runs / "none").stdout) == []
    first, second = json.loads(tosca("show", "--json", "--runs", runs).stdout)
    assert (second["dataset"], second["seeds"]) == ("a-rather-long-name-of-photos", 1)
    assert 0 <= second["last_accuracy"] <= 100
    for text in ("", "[]", "{}", "[" * 100_000, '{"R": [["a"]]}', '{"R": 3, "seeds": []}'):
        (runs / first["run"] / "metrics.json").write_text(text)
        listed = tosca("show", "--runs", runs, code=0)
        assert second["run"] in listed.output and f"{first['run']}: metrics cannot be read" in listed.output
        assert json.loads(tosca("show", "--json", "--runs", runs).stdout) == [
            {"run": first["run"], "problem": ANY},
            second,
        ]
        assert "error: " in tosca("show", first["run"], "--runs", runs, code=1).output
