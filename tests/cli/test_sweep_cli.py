"""`tosca sweep` as a user meets it: the example of the docs, what is labelled, --plan, a storage of Optuna, and Ctrl-C."""

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


def states():
    """Of all cells; none before the ledger is quite made."""
    with suppress(RunError), Ledger.open(Path("runs/shapes-sweep.sqlite"), read_only=True) as book:
        return [cell.state for cell in book.cells()]
    return []


def test_the_command_of_the_docs(place):
    axes = ["--set", "l1=1e-4,5e-4,1e-3", "--set", "lr=log:0.005:0.1:5"]
    result = sweep(*axes, "--seeds", "1993,1994,1995", code=0)
    assert states() == ["done"] * (3 * 5 * 3 + 2 + 2)
    for words in (
        "best settings by last accuracy, chosen on 20% of each class's train rows held out",
        "trained afresh, scored on test rows, seeds 1, 2",
        "15 settings, 45 cells in ",
        "ledger: runs/shapes-sweep.sqlite",
        "report: runs/shapes-sweep.report.json",
        "chosen setting: tosca train --config runs/shapes-sweep.best.toml",
    ):
        assert words in words_of(result)
    assert "\x1b" not in result.output and "\r" not in result.output, "no terminal: one line a stage"
    stages = re.findall(r"^((?:search|report: .*): \d+/\d+) cells in (.*)$", result.stdout, re.MULTILINE)
    assert [stage for stage, _ in stages] == ["search: 45/45", "report: chosen: 2/2", "report: base setting: 2/2"]
    assert "; best " in stages[0][1] and " ± " in stages[0][1]
    assert "diverged" not in result.output and "leak" not in result.output


def test_an_oracle_and_batch_routing_are_labelled_in_every_table_and_leave_no_setting_to_train_with(place):
    Path("runs").mkdir()
    Path("runs/shapes-sweep.best.toml").write_text("of an honest sweep before")
    result = sweep("--set", "lr=0.0001,0.05", "--set", "router=batch", "--select", "test-oracle", code=0)
    assert "leaks the task" in result.stdout.splitlines()[1] and words_of(result).count("leaks the task") == 3
    assert words_of(result).count("chosen on test rows (an oracle: not a result)") == 2
    assert "chosen setting: tosca train" not in result.stdout
    assert not Path("runs/shapes-sweep.best.toml").exists()
    written = Path("runs/shapes-sweep.report.json").read_text()
    assert "oracle" in written and "leaks the task" in written


def test_what_diverges_is_counted_and_all_lies_beside_the_ledger(place):
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
    before = everything(place.parent)
    result = sweep("--set", "lr=0.005,0.05", "--set", "mlp_ratio=2,3", "--seeds", "1,2,3", "--plan", code=0)
    for words in ("4 settings, 12 cells; engine ", "mlp_ratio", "models", "MiB", "rows val", "epochs 2"):
        assert words in result.stdout
    assert everything(place.parent) == before
    sweep("--set", "lr=0.005", "--set", "mlp_ratio=2,3", "--seeds", "1", code=0)
    before = everything(place)
    finished = sweep("--set", "lr=0.005,0.05", "--set", "mlp_ratio=2,3", "--seeds", "1", "--plan")
    assert re.search(r"│ 2 +│ +2 │ +1 │", finished.stdout), finished.stdout
    assert everything(place) == before


@pytest.mark.parametrize("more", [(), ("--jobs", "2")])
def test_ctrl_c_leaves_a_ledger_that_goes_on(place, more):
    """Pressed on a terminal, which tells the command and every process that it has started, when one block is recorded."""
    command = ["sweep", *QUICK, "--set", "epochs=1,2,3,4", "--set", "lr=0.005,0.05"]
    process = Command(*command, *more, before=partial(hold, "tosca_cache.sweep.ledger:Ledger", "record"))
    process.wait_until(lambda: states().count("done"))
    assert process.interrupt() == 130, (process.output, process.error)
    assert "run the same command again" in process.error and "Traceback" not in process.error
    assert 0 < states().count("done") < 8 and "running" not in states()
    assert "search: 8/8 cells in " in tosca(*command, code=0).stdout
    assert set(states()) == {"done"}
