"""`tosca compare` as a user meets it: one table in four formats, a learner in one file, failures, and going on."""

import csv
import io
import json
import re
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import plugin_files
import pytest
import write_method_docs
from commands import Command, hold, tosca

from tosca_cache.errors import RunError
from tosca_cache.learners import LEARNERS
from tosca_cache.routing import ROUTERS
from tosca_cache.sweep.ledger import Ledger

LEDGER = "runs/digits-compare.sqlite"
QUICK = ("--seeds", "2", "--methods", "simplecil,teen")


@pytest.fixture(autouse=True)
def _registries():
    """Plugins are forgotten after each test."""
    kept = [(registry, dict(registry)) for registry in (LEARNERS, ROUTERS)]
    yield
    for registry, before in kept:
        registry.clear()
        registry.update(before)
    for name in [name for name in sys.modules if name.startswith("tosca_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def plugin(digits_place):
    """Writes a user's file: (text) -> path."""

    def write(text):
        path = digits_place / "mine.py"
        path.write_text(text)
        return path

    return write


def compare(*arguments, **how):
    return tosca("compare", "--dataset", "digits", *arguments, **how)


def cells(ledger=LEDGER):
    with suppress(RunError), Ledger.open(Path(ledger), read_only=True) as book:
        return book.cells()
    return []


def class_means():
    """Last accuracy of the nearest class mean, as tables show it; the order of the classes does not matter."""
    table = compare("--methods", "simplecil", "--seeds", "1", "--ledger", "other.sqlite", "--json")
    return f"{json.loads(table.stdout)['rows'][0]['values']['last_accuracy']['mean']:.2f}"


def test_one_table_in_four_formats(digits_place, plugin):
    asked = (*QUICK[:2], "--methods", "simplecil,teen,perfect", "--plugin", plugin(plugin_files.BOUND))
    result = compare(*asked, "--json", code=0)
    found = json.loads(result.stdout)
    names = [row["method"] for row in found["rows"]]
    assert set(names) == {"simplecil", "teen", "perfect"} and names[-1] == "perfect"
    assert found["seeds"] == [1993, 1994] and found["task_sizes"] == [2] * 5
    columns = found["columns"]
    assert columns == [
        *("average_accuracy", "last_accuracy", "forgetting", "stored_numbers", "trainable_parameters"),
        *("train_seconds", "milliseconds"),
    ]
    accuracies = [[f"{row['values'][c]['mean']:.2f}" for c in columns[:3]] for row in found["rows"]]
    best = [f(a[c] for a in accuracies[:-1]) for c, f in zip(range(3), (max, max, min), strict=True)]
    bold = [[a[c] == best[c] for c in range(3)] for a in accuracies[:-1]] + [[False] * 3]

    def check(rows, is_bold):
        """rows: name and entries of each line, as written."""
        assert [name.rstrip("*\\").removesuffix("\\*") for name, _ in rows] == names
        assert [name.endswith("*") for name, _ in rows] == [False, False, True]
        for (_, entries), numbers, marked in zip(rows, accuracies, bold, strict=True):
            for entry, number, mark in zip(entries[:3], numbers, marked, strict=True):
                assert number in entry and "±" in entry.replace(r"$\pm$", "±")
                assert is_bold(entry) is mark
            assert "1,930" in entries[3] or "1,931" in entries[3]
            assert entries[4].strip() == "0"

    text = compare(*asked).stdout
    lines = [line.strip("│ ").split("│") for line in text.splitlines() if line.startswith("│")]
    check([(line[0].strip(), line[1:]) for line in lines], lambda entry: "**" in entry)
    assert "├" in text.splitlines()[6], "a rule above the bounds"
    assert "* its answer may depend on the other test rows (transductive): perfect" in text
    assert "bounds, not learners to be compared with: perfect" in text

    markdown = compare(*asked, "--format", "markdown").stdout
    lines = [line.strip("| ").split("|") for line in markdown.splitlines() if line.startswith("|")]
    assert lines[1] == ["---", *["---:"] * 7]
    check([(line[0].strip(), line[1:]) for line in lines[2:] if "bounds" not in line[0]], lambda entry: "**" in entry)

    latex = compare(*asked, "--format", "latex").stdout
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    lines = [line.removesuffix(r"\\").split("&") for line in body.splitlines() if "&" in line]
    check([(line[0].strip().replace("{*}", "*"), line[1:]) for line in lines], lambda entry: "textbf" in entry)
    assert body.count(r"\midrule") == 2 and r"\begin{tabular}{lrrrrrrr}" in latex
    assert latex.count("{") == latex.count("}")

    rows = list(csv.DictReader(io.StringIO(compare(*asked, "--format", "csv").stdout)))
    assert [row["method"] for row in rows] == names
    for row, other in zip(rows, found["rows"], strict=True):
        for column in columns:
            assert float(row[f"{column}_mean"]) == other["values"][column]["mean"]
            assert float(row[f"{column}_std"]) == other["values"][column]["spread"]
        assert row["seeds"] == "2" and row["bound"] == str(other["bound"]).lower()
    assert {cell.attempts for cell in cells()} == {1}, "the ledger was read, and nothing was run again"


def test_a_learner_in_one_file_with_an_option(digits_place, plugin):
    path = plugin(plugin_files.RECENT)
    asked = ("--seeds", "1993", "--methods", "recent,simplecil", "--plugin", path, "--json")
    same = json.loads(compare(*asked).stdout)["rows"]
    assert len({row["values"]["last_accuracy"]["mean"] for row in same}) == 1
    result = compare(*asked, "--set", "recent.weight=2")
    rows = {row["method"]: row for row in json.loads(result.stdout)["rows"]}
    assert rows["recent"]["options"] == {"weight": 2.0}
    assert rows["recent"]["values"]["last_accuracy"]["mean"] < 30 < rows["simplecil"]["values"]["last_accuracy"]["mean"]
    assert len(cells()) == 3, "an option makes another cell; the other learner's stays"
    path.write_text(plugin_files.RECENT + "\n# edited\n")
    del sys.modules[next(name for name in sys.modules if name.startswith("tosca_plugin_"))]
    LEARNERS.pop("recent")
    compare(*asked)
    assert len(cells()) == 4, "a learner that was edited is another one"


def test_a_failing_learner_stands_in_the_notes_and_the_rest_goes_on(digits_place, plugin):
    path = plugin(plugin_files.FAILING)
    result = compare("--seeds", "2", "--methods", "failing,simplecil", "--plugin", path, code=1)
    assert "[1] failing: failed with seed 1994: KeyError: 'no third task_for | me'" in result.stdout
    assert f"({path}, line" in result.stdout
    assert {cell.state for cell in cells()} == {"done", "failed"} and len(cells()) == 4
    line = next(line for line in result.stdout.splitlines() if "failing* [1]" in line)
    assert class_means() in line, "of the seed that did not fail"
    again = compare("--seeds", "2", "--methods", "failing", "--plugin", path, "--format", "markdown", code=1)
    assert r"no third task\_for \| me" in again.stdout
    assert sorted(cell.attempts for cell in cells()) == [1, 1, 1, 2], "what failed is tried again, and nothing else"


def test_few_shot_streams_have_two_columns_more(digits_place):
    result = compare("--seeds", "1", "--methods", "simplecil", "--init-cls", "4", "--shots", "5", "--json")
    found = json.loads(result.stdout)
    assert found["shots"] == 5 and found["task_sizes"] == [4, 2, 2, 2]
    (row,) = found["rows"]
    (seed,) = row["seeds"].values()
    assert row["values"]["performance_drop"]["mean"] == seed["accuracy_curve"][0] - seed["accuracy_curve"][-1]
    assert 0 < row["values"]["harmonic_mean"]["mean"] < 100
    assert "5 shots" in compare("--seeds", "1", "--methods", "simplecil", "--init-cls", "4", "--shots", "5").stdout


def test_batch_routing_is_said_to_leak(digits_place):
    epochs = ("--epochs", "1", "--engine", "torch")
    result = compare("--seeds", "1", "--methods", "tosca", "--router", "batch", *epochs)
    assert "* its answer may depend on the other test rows (transductive): tosca" in result.stdout
    assert "its routing leaks the task through the order of the test file" in result.stdout
    assert "[1] tosca: router batch" in result.stdout


def test_sweep_show_reads_the_ledger(digits_place):
    compare(*QUICK, code=0)
    shown = tosca("sweep", "show", LEDGER, code=0)
    assert "method simplecil" in shown.output and "97.22" in shown.output


def test_killed_and_interrupted_the_same_command_runs_the_rest(digits_place, plugin):
    asked = ["--seeds", "4", "--methods", "halting", "--plugin", plugin(plugin_files.HALTING)]
    before = partial(hold, "tosca_cache.sweep.ledger:Ledger", "record")
    command = Command("compare", "--dataset", "digits", *asked, before=before)
    command.wait_until(finished_cells)
    assert command.kill() == -signal.SIGKILL
    killed = finished_cells()
    assert len(killed) == 1
    Path("stop").touch()
    interrupted = compare(*asked, code=130)
    assert "it goes on with what is not finished" in interrupted.stderr
    assert sorted(cell.state for cell in cells()) == ["done", "done", "open", "open"]
    Path("stop").unlink()
    last = compare(*asked, code=0)
    assert "2 of 4 cells are finished already" in last.stderr
    assert re.search(rf"halting .*{class_means()} ± 0\.00", last.stdout)
    after = finished_cells()
    assert len(after) == 4 and {address: after[address] for address in killed} == killed


def finished_cells():
    return {cell.address: cell for cell in cells() if cell.state == "done"}


def test_a_router_in_one_file(digits_place, plugin):
    path = plugin(plugin_files.ROUTER)
    tosca("train", "--dataset", "digits", "--epochs", "1", "--router", "first", "--plugin", path, code=0)
    (run,) = Path("runs").iterdir()
    routed = tosca("route", run, "--routers", "first,sample", "--plugin", path, "--json")
    routers = json.loads(routed.stdout)[0]["routers"]
    assert routers["first"]["task_identification_accuracy"] < 25 < routers["sample"]["task_identification_accuracy"]


def test_the_learners_are_listed_with_what_they_say_of_themselves(plugin):
    path = plugin(plugin_files.RECENT)
    listed = {facts["name"]: facts for facts in json.loads(tosca("methods", "--plugin", path, "--json").stdout)}
    assert listed.keys() == LEARNERS.keys() and "recent" in listed
    assert listed["recent"]["options"] == {"weight": 0.0}
    assert listed["ranpac"]["options"]["expansion"] == 10_000
    assert listed["adanpc"]["rehearsal"] and listed["lame"]["transductive"] and listed["joint-luca"]["bound"]
    words = " ".join(tosca("methods").stdout.split())
    assert all(name in words for name in listed)


def test_the_page_of_learners_is_up_to_date():
    page = write_method_docs.TARGET.read_text(encoding="utf-8")
    assert page == write_method_docs.document(), "run: python tools/write_method_docs.py"


def test_one_learner_is_shown_by_its_name():
    assert [facts["name"] for facts in json.loads(tosca("methods", "mos", "nmc", "--json").stdout)] == ["mos", "nmc"]
    failed = tosca("methods", "moss", code=2)
    assert "did you mean 'mos'?" in failed.stderr
