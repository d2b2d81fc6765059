"""Tasks of one's own: sizes, an order of classes, few shots; in every command, in Python, and in what a run records."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import tosca as command
from hypothesis import given
from hypothesis import strategies as st

import tosca_cache as tosca
from tosca_cache.class_order import given_order
from tosca_cache.errors import UsageError
from tosca_cache.sweep.ledger import Ledger

QUICK = ("--epochs", "2", "--batch-size", "8", "--mlp-ratio", "4", "--se-ratio", "4", "--router", "sample")
ORDER = ("class-4", "0", "class-5", "class-1", " class-3 ", "2")  # names, and indices as texts
NAMES = ["class-4", "class-0", "class-5", "class-1", "class-3", "class-2"]
SIZES = "1,3,2"
TASKS = [NAMES[:1], NAMES[1:4], NAMES[4:]]


@pytest.fixture
def place(shapes_place):
    """A folder with one store of six classes and a class order, as the working directory."""
    Path("order.txt").write_text("\ufeff" + "\r\n".join(ORDER) + "\n\n", encoding="utf-8")
    return shapes_place


OWN = ("--task-sizes", SIZES, "--class-order", "order.txt")


def metrics_of(runs="runs"):
    (path,) = Path(runs).glob("*/metrics.json")
    return path.parent, json.loads(path.read_text())


def cells(ledger):
    with Ledger.open(Path(ledger), read_only=True) as book:
        return book.cells()


def test_a_run_records_and_repeats_them(place):
    trained = command("train", "--dataset", "shapes", *QUICK, *OWN, "--shots", "4", "--seed", "7,8", code=0)
    path, metrics = metrics_of()
    assert metrics["task_sizes"] == [1, 3, 2]
    assert [seed["tasks"] for seed in metrics["seeds"].values()] == [TASKS, TASKS]
    assert "class-0, class-5, class-1" in trained.output, "what a task holds is shown by name"
    with np.load(path / "seed-7" / "losses.npz") as losses:
        steps = [len(losses[f"task_{t}"]) for t in range(3)]
    # 9 rows of the first class, then 4 shots of each class; 2 epochs of batches of 8.
    assert steps == [2 * 2, 2 * 2, 2 * 1]
    for seed in metrics["seeds"].values():
        curve = [np.average(row[: t + 1], weights=[5, 15, 10][: t + 1]) for t, row in enumerate(seed["R"])]
        assert seed["performance_drop"] == pytest.approx(curve[0] - curve[-1])
    assert metrics["harmonic_mean"] is not None and metrics["spread"]["harmonic_mean"] is not None
    assert "performance drop" in trained.output and "harmonic mean" in trained.output

    command("train", "--config", path / "config.toml", "--runs", "again", code=0)
    assert metrics_of("again")[1]["R"] == metrics["R"]
    routed = command("route", path, "--routers", "sample", "--json", code=0)
    assert [seed["routers"]["sample"]["last_accuracy"] for seed in json.loads(routed.stdout)] == pytest.approx(
        [seed["last_accuracy"] for seed in metrics["seeds"].values()]
    )
    assert "class-3, class-2" in command("show", path).output
    shown = command("train", "--config", path / "config.toml", "--show-config").output
    assert "task_sizes" in shown and "(no effect)" in shown


WRONG = {
    "unknown": (["class-44", *NAMES[1:]], (), "no class 'class-44'", "did you mean 'class-4'"),
    "no such index": (["6", *NAMES[1:]], (), "no class '6'", "from 0 to 5"),
    "twice": ([*NAMES, "4"], (), "class 'class-4' stands 2 times", "every class once"),
    "missing": (NAMES[:4], (), "'class-2' stands 0 times", "every class once"),
    "sizes": (NAMES, ("--task-sizes", "2,2"), "2 tasks sum up to 4, but there are 6 classes", "6 in all"),
    "no file": (NAMES, ("--class-order", "nowhere"), "cannot be read: No such file", "text file"),
    "a folder": (NAMES, ("--class-order", "cache"), "cannot be read: Is a directory", "text file"),
    "no text": (b"class-0\nclass-\xff\n", (), "byte 0xff", "UTF-8"),
    "shots": (NAMES, ("--shots", "10"), "9 train rows, but 10", "use 9 shots or fewer"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_before_anything_is_written(place, case):
    lines, options, problem, remedy = WRONG[case]
    Path("order.txt").write_bytes(lines if isinstance(lines, bytes) else "\n".join(lines).encode())
    result = command("train", "--dataset", "shapes", *OWN, *options, code=2)
    assert problem in result.output and remedy in result.output
    assert not Path("runs").exists()


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)), st.permutations(["0", "3", "77", "a", " b", "é"]))
def test_any_mixture_of_names_and_indices_is_the_order_that_it_says(order, named, names):
    """Names that are numbers come before indices."""
    assert given_order([names[c] if c in named else c for c in order], names).tolist() == list(order)
    for wrong, words in ((["1", "2", "cat", "0"], "'2' stands 2 times"), ([True, 0, 1, 2], "no class True")):
        with pytest.raises(UsageError, match=words):
            given_order(wrong, ["10", "2", "cat", "0"])


def test_a_comparison_has_them(place):
    asked = ("compare", "--dataset", "shapes", "--seeds", "2", "--methods", "simplecil", *OWN)
    found = json.loads(command(*asked, "--shots", "3", "--json", code=0).stdout)
    assert found["task_sizes"] == [1, 3, 2] and found["shots"] == 3 and found["increment"] is None
    assert found["tasks"] == {"1993": TASKS, "1994": TASKS}
    (row,) = found["rows"]
    drops = [seed["accuracy_curve"][0] - seed["accuracy_curve"][-1] for seed in row["seeds"].values()]
    assert row["values"]["performance_drop"]["mean"] == pytest.approx(np.mean(drops))
    assert 0 <= row["values"]["harmonic_mean"]["mean"] <= 100
    assert "3 tasks of 1, 3, 2 classes, 3 shots" in command(*asked, "--shots", "3").stdout
    kept = cells("runs/shapes-compare.sqlite")
    assert [cell.content["setting"]["task_sizes"] for cell in kept] == [[1, 3, 2]] * 2
    command(*asked)
    assert len(cells("runs/shapes-compare.sqlite")) == 4, "all rows are another protocol than three shots"


@pytest.mark.parametrize("select", ["val", "first-task"])
def test_a_sweep_has_them(place, select):
    quick = ("--set", "epochs=1", "--set", "lr=0.01,0.1", "--report-seeds", "1", "--select", select, "--shots", "5")
    store = ("--backbone", "toy", "--img-size", "32", "--normalize", "timm", "--views", "3")
    command("sweep", "--dataset", "shapes", *store, *OWN, *quick, code=0)
    assert '" class-3 "' in Path("runs/shapes-sweep.best.toml").read_text()
    found = cells("runs/shapes-sweep.sqlite")
    final = [cell for cell in found if (cell.content["seed"], cell.content["setting"]["lr"]) == (1, 0.025)]
    assert [len(cell.result["R"]) for cell in final] == [3]
    chosen = json.loads(Path("runs/shapes-sweep.report.json").read_text())["report"][0]
    assert 0 <= chosen["harmonic_mean"]["mean"] <= 100 and "performance_drop" in chosen


def test_a_sweep_says_which_choices_do_not_go_together(place):
    asked = ("sweep", "--dataset", "shapes", "--set", "lr=0.01,0.1")
    for options, words in (
        ((*OWN, "--select", "two-phase"), "half of the classes have no such tasks"),
        ((*OWN, "--set", "increment=1,2"), "increment is given, but task_sizes"),
        (("--set", "task_sizes=1+3+2,2+2+2"), "Give it with --task-sizes"),
        (("--set", "shots=1,2"), "Give it with --shots"),
        (("--incremental", "domains"), "one domain only"),
        (("--incremental", "domains", "--set", "increment=2,3"), "each domain is a task"),
        (("--backbone", "vit_nano"), "backbone.name"),
        (("--views", "4"), "views.count: asked for 4, it has 3"),
    ):
        result = command(*asked, *options)
        assert result.exit_code in (1, 2) and words in result.output, (options, result.output)
    assert not list(Path().glob("runs/*.report.json"))


def test_from_python(place):
    store = tosca.open_store("cache/shapes--toy")
    stream = tosca.task_stream(store, task_sizes=[1, 3, 2], class_order=np.array([4, 0, 5, 1, 3, 2]), shots=4)
    assert [list(stream.names(number)) for number in range(3)] == TASKS
    assert stream.train_counts().tolist() == [9, 12, 8]
    table = tosca.compare(store, ["simplecil"], seeds=1, task_sizes=[1, 3, 2], class_order=list(ORDER), shots=4)
    assert table["tasks"]["1993"] == TASKS
    for wrong, words in (
        ({"task_sizes": [1, 2]}, "sum up to 3"),
        ({"task_sizes": [6], "increment": 2}, "said twice"),
        ({"incremental": "domains", "class_order": NAMES}, "each domain is a task"),
        ({}, "give increment, or task_sizes"),
    ):
        with pytest.raises(UsageError, match=words):
            tosca.task_stream(store, **wrong)
