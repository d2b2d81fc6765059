"""The part of a run: accuracy after each task, the matrix, forgetting, task confusion, conditions, classes, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from tosca_cache.report.pages.blocks import Block, Cell, Figure, Part, Section, Table, Value
from tosca_cache.report.pages.charts import Bar, Series, bars, heat_map, legend, lines
from tosca_cache.report.pages.classes import class_blocks
from tosca_cache.report.pages.maps import map_figure
from tosca_cache.report.pages.provenance import origin_facts, repeat_facts
from tosca_cache.report.sweeps import plain
from tosca_cache.report.tables import CONDITIONS, METRICS, STAGES, learner_words, tasks_words, with_spread

REFERENCES = {  # curves and single values to hold the run against, by the condition
    "oracle": "ceiling: the true task's module",
    "pool": "opinion pool, no modules",
    "nearest_class_mean": "floor: nearest class mean",
}
FEW_SEEDS = 3


def run_part(run: Value) -> Part:
    """The part of a run; see `runs.report_facts.run_facts` for what it is given."""
    metrics = run["metrics"]
    names = ("average_accuracy", "last_accuracy", "forgetting")
    numbers = [(METRICS[n], with_spread(metrics[n], metrics["spread"].get(n))) for n in names]
    sections = [
        Section("Run", run_blocks(metrics, run.get("curves"))),
        *([Section("Tasks and routing", _routing_blocks(run))]),
        *([Section("Classes", class_blocks(run))] if run.get("classes") else []),
        Section("Provenance", _provenance_blocks(run)),
    ]
    about: list[tuple[str, Cell]] = [
        ("data", f"{metrics['dataset']}, {tasks_words(metrics)}"),
        ("learner", learner_words(metrics)),
        ("seeds", ", ".join(metrics["seeds"])),
        ("command", run.get("command") or "not recorded"),
        ("run", run["path"]),
    ]
    return Part(run["name"], "Run", about, numbers, [*_warnings(metrics), *run.get("warnings", ())], sections)


def _warnings(metrics: Value) -> list[str]:
    said = []
    if metrics.get("leaks"):
        said.append(f"The protocol leaks: batch routing {metrics['leaks']}. Not comparable with per-sample routing.")
    if metrics.get("diverged"):
        said.append(f"Seed {', '.join(metrics['diverged'])} diverged: these numbers mean nothing.")
    if len(metrics["seeds"]) < FEW_SEEDS:
        count = len(metrics["seeds"])
        said.append(
            f"{'One seed' if count == 1 else f'{count} seeds'}: the class order alone moves accuracy by points; "
            "differences this small may be chance."
        )
    return said


def run_blocks(metrics: Value, curves: Value | None) -> list[Block]:
    """Accuracy after each task, the matrix and forgetting."""
    return [_curve(metrics, curves), _matrix(metrics), *_forgetting(metrics)]


def _curve(metrics: Value, curves: Value | None) -> Figure:
    own = metrics["accuracy_curve"]
    tasks = list(range(1, len(own) + 1))
    found = [Series("this run", tasks, own, seeds_spread(metrics), "run")]
    last = metrics["last_accuracy_by_condition"]
    for key, name in REFERENCES.items():
        if curves and key in curves:
            found.append(Series(name, tasks, curves[key]["mean"], curves[key]["spread"] or ()))
        elif last.get(key) is not None:
            found.append(Series(f"{name} (after the last task)", tasks[-1:], [last[key]]))
    rows: list[list[Cell]] = [[t, *(_at(one, t) for one in found)] for t in tasks]
    numbers = Table("", "", ["after task", *(one.name for one in found)], rows)
    reads = (
        "Accuracy over all classes seen so far, after each task; the band is one standard deviation over the seeds. "
        "A run is worth its effort between the floor and the ceiling."
    )
    if not curves:
        reads += (
            " Floor, ceiling and pool are drawn after the last task; “tosca report” draws their curves where it can."
        )
    chart = lines("Accuracy after each task", _says(found), found, "tasks learned", "accuracy (%)")
    return Figure("Accuracy after each task", reads, chart + legend([one.name for one in found]), numbers)


def _at(one: Series, x: int) -> Cell:
    return one.y[list(one.x).index(x)] if x in one.x else None


def _says(found: Sequence[Series]) -> str:
    said = []
    for one in found:
        known = [v for v in one.y if v is not None]
        if known:
            said.append(
                f"{one.name} from {known[0]:.1f} to {known[-1]:.1f}" if len(known) > 1 else f"{one.name} {known[0]:.1f}"
            )
    return "; ".join(said) + " percent."


def seeds_spread(metrics: Value) -> list[float | None]:
    """Sample standard deviation over seeds of the accuracy after each task; empty for one seed."""
    found = [seed_curve(seed) for seed in metrics["seeds"].values()]
    if len(found) < 2:
        return []
    return [stdev(v) if all(x is not None for x in v) else None for v in zip(*found, strict=True)]  # type: ignore[type-var]


def seed_curve(seed: Value) -> list[float | None]:
    """Accuracy over all test rows seen after each task, from R and the rows of each task."""
    counts = seed.get("test_rows") or [1] * len(seed["R"])
    found: list[float | None] = []
    for t, row in enumerate(seed["R"]):
        pairs = [(v, n) for v, n in zip(row[: t + 1], counts, strict=False) if v is not None]
        total = sum(n for _, n in pairs)
        found.append(sum(v * n for v, n in pairs) / total if total else None)
    return found


def _matrix(metrics: Value) -> Figure:
    R = metrics["R"]
    known = [v for row in R for v in row if v is not None] or [0.0]
    chart = heat_map(
        "Accuracy matrix",
        f"{len(R)} tasks; between {min(known):.1f} and {max(known):.1f} percent, light is high.",
        R,
        "after task",
        "test rows of task",
        low=min(*known, 90.0) // 10 * 10,
        high=100.0,
    )
    rows: list[list[Cell]] = [[i + 1, *row] for i, row in enumerate(R)]
    numbers = Table("", "", ["after task", *(f"task {j + 1}" for j in range(len(R)))], rows)
    reads = "A row is a moment, a column the test rows of one task: a column that darkens downwards is being forgotten."
    return Figure("Accuracy matrix", reads, chart, numbers)


def _forgetting(metrics: Value) -> list[Figure]:
    R = metrics["R"]
    if len(R) < 2:
        return []
    found = []
    for j in range(len(R) - 1):
        before = [row[j] for row in R[j:-1] if row[j] is not None]
        if before and R[-1][j] is not None:
            found.append(
                Bar(
                    f"task {j + 1}",
                    max(before) - R[-1][j],
                    tip=f"task {j + 1}: best {max(before):.2f}, last {R[-1][j]:.2f}",
                )
            )
    if not found:
        return []
    rows: list[list[Cell]] = [[bar.label, bar.value] for bar in found]
    worst = max(found, key=lambda bar: bar.value or 0.0)
    says = f"The most is lost of {worst.label}, {worst.value:.2f} points."
    numbers = Table("", "", ["task", "points lost"], rows)
    reads = "How far accuracy on each task fell from its best to the end; below zero it has gained."
    if len(found) > 15:
        series = [Series("points lost", list(range(1, len(found) + 1)), [bar.value for bar in found])]
        chart = lines("Forgetting by task", says, series, "task", "points lost")
    else:
        chart = bars("Forgetting by task", says, found, "percentage points lost")
    return [Figure("Forgetting by task", reads, chart, numbers)]


def _routing_blocks(run: Value) -> list[Block]:
    found: list[Block] = []
    confusion = run.get("task_confusion")
    if confusion:
        own = [row[i] for i, row in enumerate(confusion) if row[i] is not None]
        chart = heat_map(
            "Task confusion",
            f"Between {min(own):.1f} and {max(own):.1f} percent of a task's photos were sent to their own task.",
            confusion,
            "true task",
            "sent to task",
            low=0.0,
            high=100.0,
        )
        rows: list[list[Cell]] = [[i + 1, *row] for i, row in enumerate(confusion)]
        numbers = Table("", "", ["true task", *(f"to {j + 1}" for j in range(len(confusion)))], rows)
        reads = (
            "Where each task's photos were sent after the last task, percent of a row, all seeds together: what is off "
            "the diagonal was answered by another task's module (or, without modules, with another task's class)."
        )
        found.append(Figure("Task confusion", reads, chart, numbers))
    if (places := run.get("map")) and places["points"]:
        tasks = [f"task {t + 1}" for t in range(len(run["metrics"]["R"]))]
        title = f"Map of the features by task, seed {places['seed']}"
        found.append(map_figure(title, places, places["task_of"], tasks, "task"))
    return [*found, _conditions(run["metrics"]), _seconds(run["metrics"])]


def _conditions(metrics: Value) -> Figure:
    last, spread = metrics["last_accuracy_by_condition"], metrics["last_accuracy_by_condition_spread"]
    found, rows = [], list[list[Cell]]()
    for key, title in CONDITIONS.items():
        if (value := last.get(key)) is not None:
            s = spread.get(key)
            low, high = (None, None) if s is None else (value - s, value + s)
            tip = f"{title}: {with_spread(value, s)}"
            found.append(
                Bar(title, value, low, high, key == "batch_in_order", 6 if key.startswith("batch") else 0, tip)
            )
            rows.append([title, value, s])
    reads = (
        "Last accuracy of the same features under each way to choose a module; lines are one standard deviation. "
        "What is hatched leaks the task through the order of the test file: it is no result."
    )
    chart = bars("Routing conditions", "; ".join(bar.tip for bar in found), found, "last accuracy (%)")
    return Figure("Routing conditions", reads, chart, Table("", "", ["condition", "percent", "spread"], rows))


def _seconds(metrics: Value) -> Table:
    rows: list[list[Cell]] = [
        [title, float(metrics["seconds"][key])] for key, title in STAGES.items() if key in metrics["seconds"]
    ]
    return Table("Seconds", "What each stage took, all seeds together.", ["stage", "seconds"], rows)


def _provenance_blocks(run: Value) -> list[Block]:
    found: Mapping[str, Any] = run.get("provenance") or {}
    origin = found.get("settings_from") or {}
    settings: list[list[Cell]] = [
        [key, plain(v), str(origin.get(key, ""))] for key, v in (run.get("settings") or {}).items()
    ]
    reads = "Every setting that had an effect, and where it came from."
    return [
        origin_facts(found, [("seeds", ", ".join(run["metrics"]["seeds"]))]),
        Table("Settings", reads, ["setting", "value", "from"], settings),
        repeat_facts([("as it was", run.get("command")), ("from the run", run.get("repeat"))]),
    ]
