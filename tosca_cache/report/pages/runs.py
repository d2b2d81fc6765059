"""The part of a run: accuracy after each task, the matrix, forgetting, task confusion, conditions, classes, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tosca_cache.report.pages.blocks import Block, Cell, Figure, Gallery, Part, Table, Value, origin_facts, repeat_facts
from tosca_cache.report.pages.charts import Bar, Series, bars, heat_map, interval, lines
from tosca_cache.report.pages.stores import map_figure
from tosca_cache.report.sweeps import plain
from tosca_cache.report.tables import CONDITIONS, METRICS, learner_words, over_seeds, tasks_words, with_spread

REFERENCES = {  # curves and single values to hold the run against, by the condition
    "oracle": "ceiling: the true task's module",
    "pool": "opinion pool, no modules",
    "nearest_class_mean": "floor: nearest class mean",
}
FEW_SEEDS, MOST_PAIRS = 3, 30


def run_part(run: Value) -> Part:
    """The part of a run; see `runs.report_facts.run_facts` for what it is given."""
    metrics = run["metrics"]
    names = ("average_accuracy", "last_accuracy", "forgetting")
    numbers = [(METRICS[n], with_spread(metrics[n], metrics["spread"].get(n))) for n in names]
    sections: list[tuple[str, list[Block]]] = [
        ("Run", [_curve(metrics, run.get("curves")), _matrix(metrics), *_forgetting(metrics)]),
        ("Tasks and routing", _routing_blocks(run)),
        ("Provenance", _provenance_blocks(run)),
    ]
    if run.get("classes"):
        sections.insert(2, ("Classes", [*_class_blocks(run["classes"]), *_photo_blocks(run.get("photos") or {})]))
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
    reads = (
        "Accuracy over all classes seen so far, after each task; the band is one standard deviation over the seeds. "
        "A run is worth its effort between the floor and the ceiling."
    )
    if not curves:
        reads += " “tosca report” draws the curves of floor, ceiling and pool where it can."
    return lines("Accuracy after each task", reads, found, "tasks learned", "accuracy (%)")


def seeds_spread(metrics: Value) -> list[float | None]:
    """Sample standard deviation over seeds of the accuracy after each task; empty for one seed."""
    found = [seed_curve(seed) for seed in metrics["seeds"].values()]
    if len(found) < 2:
        return []
    return [over_seeds(v)["spread"] if None not in v else None for v in zip(*found, strict=True)]


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
    reads = "A row is a moment, a column the test rows of one task: a column that darkens downwards is being forgotten."
    low = min([90.0, *(v for row in R for v in row if v is not None)]) // 10 * 10
    return heat_map("Accuracy matrix", reads, R, "after task", "test rows of task", low)


def _forgetting(metrics: Value) -> list[Figure]:
    R, found = metrics["R"], list[Bar]()
    for j in range(len(R) - 1):
        before, last = [row[j] for row in R[j:-1] if row[j] is not None], R[-1][j]
        if before and last is not None:
            tip = f"task {j + 1}: best {max(before):.2f}, last {last:.2f}"
            found.append(Bar(f"task {j + 1}", max(before) - last, tip=tip))
    if not found:
        return []
    title = "Forgetting by task"
    reads = "How far accuracy on each task fell from its best to the end; below zero it has gained."
    if len(found) > 15:
        series = [Series("points lost", range(1, len(found) + 1), [bar.value for bar in found])]
        return [lines(title, reads, series, "task", "points lost")]
    return [bars(title, reads, found, "percentage points lost", ["task", "points lost"])]


def _routing_blocks(run: Value) -> list[Block]:
    found: list[Block] = []
    if confusion := run.get("task_confusion"):
        reads = (
            "Where each task's photos were sent after the last task, percent of a row, all seeds together: what is off "
            "the diagonal was answered by another task's module (or, without modules, with another task's class)."
        )
        found.append(heat_map("Task confusion", reads, confusion, "true task", "sent to task", 0.0))
    if (places := run.get("map")) and places["points"]:
        tasks = [f"task {t + 1}" for t in range(len(run["metrics"]["R"]))]
        title = f"Map of the features by task, seed {places['seed']}"
        found.append(map_figure(title, places, places["task_of"], tasks, "task"))
    return [*found, _conditions(run["metrics"])]


def _conditions(metrics: Value) -> Figure:
    last, spread = metrics["last_accuracy_by_condition"], metrics["last_accuracy_by_condition_spread"]
    found = []
    for key, title in CONDITIONS.items():
        if (value := last.get(key)) is not None:
            s, colour = spread.get(key), 6 if key.startswith("batch") else 0
            tip, ends = f"{title}: {with_spread(value, s)}", interval(value, s)
            found.append(Bar(title, value, *ends, key == "batch_in_order", colour, tip, [s]))
    reads = (
        "Last accuracy of the same features under each way to choose a module; lines are one standard deviation. "
        "What is hatched leaks the task through the order of the test file: it is no result."
    )
    return bars("Routing conditions", reads, found, "last accuracy (%)", ["condition", "percent", "spread"])


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


def _class_blocks(found: Value) -> list[Block]:
    """Accuracies by class, and confused pairs."""
    rows = list(zip(*(found[key] for key in ("names", "accuracy", "test_rows", "taken_for")), strict=True))
    by_class = Table(
        "Accuracy by class",
        "After the last task, mean over seeds, the worst first; then what its photos are most often taken for.",
        ["class", "accuracy (%)", "test rows", "taken for"],
        sorted(rows, key=lambda row: (row[1] is None, row[1])),
        search=True,
    )
    pairs = Table(
        "Confused pairs",
        "Which photos of a class were answered with which other class, all seeds together, the most frequent first.",
        ["class", "answered", "times", "of the class (%)"],
        found["pairs"][:MOST_PAIRS],
        search=True,
        more=max(0, len(found["pairs"]) - MOST_PAIRS),
    )
    return [by_class, pairs]


def _photo_blocks(photos: Value) -> list[Block]:
    blocks: list[Block] = []
    if confused := photos.get("confused"):
        groups = [
            (f"{pair['true']} answered as {pair['answered']}", [(one["key"], one["caption"]) for one in pair["photos"]])
            for pair in confused
        ]
        reads = (
            "Misclassified test photos of the most confused pairs, each before the train photo of the wrong class whose "
            "features are nearest: often one sees why."
        )
        blocks.append(Gallery("What confused pairs look like", reads, groups, paired=True))
    if suspects := photos.get("suspects"):
        rows: list[list[Cell]] = [[s["path"], s["label"], s["probability"], s["instead"]] for s in suspects]
        reads = (
            "Train photos whose own label is unlikely to a classifier that was fitted without them (five folds, LDA on the "
            "features), the least likely first: look here for wrong labels."
        )
        columns = ["photo", "label", "probability of it", "more likely"]
        blocks.append(Table("Labels to be checked", reads, columns, rows, search=True, wide=True))
        shown = [(s["key"], f"{s['path']}: {s['label']}, or {s['instead']}?") for s in suspects if s.get("key")]
        if shown:
            reads = "The photos of the table above, in its order: the label that each has, and the likelier one."
            blocks.append(Gallery("Photos of unlikely labels", reads, [("", shown)]))
    return blocks
