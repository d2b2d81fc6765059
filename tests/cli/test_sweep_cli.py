"""`tosca sweep` as a user meets it: the example of the docs, wrong requests, --plan, and Ctrl-C."""

import json
import re
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from commands import Command, hold, tosca
from trees import everything

from tosca_cache.config import TrainConfig, to_toml
from tosca_cache.errors import RunError
from tosca_cache.sweep.ledger import Ledger

DIGITS = ("--dataset", "digits", "--set", "epochs=2", "--report-seeds", "1,2")
QUICK = ("--config", "../quick.toml", "--report-seeds", "1,2")


def sweep(*arguments, **how):
    return tosca("sweep", *QUICK, *arguments, **how)


@pytest.fixture
def place(make_store, tmp_path, monkeypatch):
    """An empty working directory; a store of six classes is found by the environment."""
    make_store(tmp_path / "cache" / "shapes--toy", noise=2.0)
    quick = {"dataset": "shapes", "increment": 2, "epochs": 2, "batch_size": 8, "mlp_ratio": 4, "se_ratio": 4}
    (tmp_path / "quick.toml").write_text(to_toml(TrainConfig(**quick)))
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("TOSCA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "place"


def words_of(result):
    """What was printed, whatever the width of the tables that titles are wrapped to."""
    return " ".join(result.stdout.split())


def cells(ledger="runs/shapes-sweep.sqlite"):
    with Ledger.open(Path(ledger), read_only=True) as book:
        return book.cells()


def test_the_command_of_the_docs(place):
    axes = ["--set", "l1=1e-4,5e-4,1e-3", "--set", "lr=log:0.005:0.1:5"]
    result = sweep(*axes, "--seeds", "1993,1994,1995", code=0)
    assert len(cells()) == 3 * 5 * 3 + 2 + 2
    for words in (
        "best settings by last accuracy, chosen on 20% of each class's train rows held out",
        "trained afresh, scored on test rows, seeds 1, 2",
        "15 settings, 45 cells in ",
        "ledger: runs/shapes-sweep.sqlite",
        "report: runs/shapes-sweep.report.json",
        "chosen setting: tosca train --config runs/shapes-sweep.best.toml",
    ):
        assert words in words_of(result)
    # Not a terminal: no live display, one line a stage.
    assert "\x1b" not in result.output and "\r" not in result.output
    stages = [line for line in result.stdout.splitlines() if re.match(r"(search|report: .*): \d+/\d+ cells in ", line)]
    assert [line.split(" cells")[0] for line in stages] == [
        "search: 45/45",
        "report: chosen: 2/2",
        "report: base setting: 2/2",
    ]
    assert "; best " in stages[0] and " ± " in stages[0]
    assert "diverged" not in result.output and "leak" not in result.output
    again = sweep(*axes, "--seeds", "1993,1994,1995")
    assert {cell.attempts for cell in cells()} == {1}
    assert table(again) == table(result)


def table(result):
    return result.stdout[result.stdout.index("best settings") : result.stdout.index("15 settings")]


def test_tosca_train_repeats_the_chosen_setting(digits_place):
    """Other programs decide other rounding, so that a row in a thousand may be a tie."""
    tosca("sweep", *DIGITS, "--set", "lr=0.005,0.05", "--set", "router=sample", code=0)
    report = json.loads(Path("runs/digits-sweep.report.json").read_text())
    tosca("train", "--config", "runs/digits-sweep.best.toml", "--runs", "alone", code=0)
    (run,) = Path("alone").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["seeds"]) == ["1", "2"]
    chosen = report["report"][0]
    assert chosen["name"] == "chosen" and chosen["seeds"] == 2
    for name in ("last_accuracy", "average_accuracy", "task_identification_accuracy"):
        assert chosen[name]["mean"] == pytest.approx(metrics[name], abs=0.2)
        assert chosen[name]["spread"] == pytest.approx(metrics["spread"][name], abs=0.2)


def test_an_oracle_and_batch_routing_are_labelled_in_every_table(place):
    setting = ("--set", "lr=0.0001,0.05", "--set", "epochs=2", "--set", "increment=2", "--report-seeds", "1,2")
    asked = ("sweep", "--dataset", "shapes", "--set", "router=batch", *setting, "--select", "test-oracle")
    result = tosca(*asked, code=0)
    first = result.stdout.splitlines()[1]
    assert "leaks the task" in first and words_of(result).count("leaks the task") == 3
    assert words_of(result).count("chosen on test rows (an oracle: not a result)") == 2
    assert "chosen setting: tosca train" not in result.stdout
    written = Path("runs/shapes-sweep.report.json").read_text()
    assert "oracle" in written and "leaks the task" in written


def test_what_diverges_is_counted(place):
    axes = ("--set", "lr=0.05,1e20", "--set", "l1=0.0005,1e20")
    result = sweep(*axes, "--ledger", "elsewhere/my.sqlite", code=0)
    assert "a cell diverged: the loss was" in result.stdout
    assert re.search(r"4 settings, 4 cells, [1-3] diverged or failed in ", words_of(result))
    assert {path.name for path in Path("elsewhere").iterdir()} >= {"my.sqlite", "my.report.json", "my.best.toml"}
    assert not Path("runs").exists()


def test_trials_are_copied_to_a_storage_of_optuna(place):
    import optuna

    options = ("--set", "lr=0.005,0.05", "--set", "milestones=1,1+2", "--set", "scheduler=steplr", "--seeds", "1,2")
    for _ in range(2):  # a second time nothing is added
        sweep(*options, "--optuna-storage", "sqlite:///study.db", code=0)
    study = optuna.load_study(study_name="shapes-sweep", storage="sqlite:///study.db")
    assert len(study.trials) == 4
    assert {trial.params["lr"] for trial in study.trials} == {0.005, 0.05}
    assert {trial.params["milestones"] for trial in study.trials} == {"(1,)", "(1, 2)"}
    report = json.loads(Path("runs/shapes-sweep.report.json").read_text())
    assert study.best_value == pytest.approx(report["top"][0]["mean"])
    assert all(trial.user_attrs["seeds"] == 2 for trial in study.trials)
    wrong = sweep(*options, "--optuna-storage", "nothing://x", code=1)
    assert "sqlite:///study.db" in wrong.output


def test_a_plan_is_printed_and_nothing_written(place):
    stores = place.parent / "cache"
    before = sorted(stores.rglob("*"))
    result = sweep("--set", "lr=0.005,0.05", "--set", "mlp_ratio=2,3", "--seeds", "1,2,3", "--plan", code=0)
    assert "4 settings, 12 cells; engine " in result.stdout
    for words in ("mlp_ratio", "2", "3", "models", "MiB", "rows val", "epochs 2"):
        assert words in result.stdout
    assert not list(place.iterdir())
    assert sorted(stores.rglob("*")) == before
    sweep("--set", "lr=0.005", "--set", "mlp_ratio=2,3", "--seeds", "1", code=0)
    files = everything(place)
    finished = sweep("--set", "lr=0.005,0.05", "--set", "mlp_ratio=2,3", "--seeds", "1", "--plan")
    assert re.search(r"│ 2 +│ +2 │ +1 │", finished.stdout), finished.stdout
    assert everything(place) == files


@pytest.mark.parametrize("more", [(), ("--jobs", "2")])
def test_ctrl_c_leaves_a_ledger_that_goes_on(place, more):
    """Pressed on a terminal, which tells the command and every process that it has started, when one block is recorded."""
    command = ["sweep", *QUICK, "--set", "epochs=1,2,3,4", "--set", "lr=0.005,0.05"]
    process = Command(*command, *more, before=partial(hold, "tosca_cache.sweep.ledger:Ledger", "record"))
    process.wait_until(lambda: states().count("done"))
    assert process.interrupt() == 130, (process.output, process.error)
    assert "run the same command again" in process.error and "Traceback" not in process.error
    assert 0 < states().count("done") < 8
    assert "running" not in states()
    result = tosca(*command, code=0)
    assert "search: 8/8 cells in " in result.stdout
    assert set(states()) == {"done"}


def states():
    """Of all cells; none before the ledger is quite made."""
    with suppress(RunError):
        return [cell.state for cell in cells()]
    return []
