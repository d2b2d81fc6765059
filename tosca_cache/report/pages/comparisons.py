"""The part of a comparison: learners in a table, their curves, what they cost, which differences are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from tosca_cache.report.compare import TITLES, Comparison, comparison, paired, verdict
from tosca_cache.report.pages.blocks import Block, Cell, Facts, Figure, Part, Table, Value, origin_facts, repeat_facts
from tosca_cache.report.pages.charts import Bar, Point, Series, bars, interval, lines, scatter
from tosca_cache.report.pages.runs import FEW_SEEDS
from tosca_cache.report.pages.svg import number
from tosca_cache.report.tables import over_seeds, with_spread

TICKED = 4  # curves shown at first


def comparison_part(facts: Value) -> Part:
    """The part of what `tosca compare` found; `found` of the facts is its table as plain values."""
    found: Value = facts["found"]
    table = comparison(found)
    rows = [row for row in found["rows"] if _mean(row, "last_accuracy") is not None]
    learners = sorted((row for row in rows if not row["bound"]), key=lambda row: -(_mean(row, "last_accuracy") or 0.0))
    best = learners[0] if learners else None
    value = best["values"]["last_accuracy"] if best else {"mean": None, "spread": None}
    differences = [(row, d) for row in learners if best and row is not best and (d := paired(row, best)) is not None]
    equal = sum(verdict(difference) != "worse" for _, difference in differences)
    numbers = [
        (f"best last accuracy: {best['method']}" if best else "best last accuracy", with_spread(**value)),
        ("learners not told apart from it", str(equal)),
        ("learners, seeds", f"{len(found['rows'])}, {len(found['seeds'])}"),
    ]
    warnings = list(facts.get("warnings") or ())
    if len(found["seeds"]) < FEW_SEEDS:
        warnings.append("Fewer than three seeds: no difference can be told from chance.")
    for row in found["rows"]:
        if row["leaks"]:
            warnings.append(f"{row['method']}: its routing {row['leaks']}.")
        if row["failed"]:
            reason = next(iter(row["failed"].values()))
            warnings.append(f"{row['method']} failed with seed {', '.join(row['failed'])}: {reason}")
    about: list[tuple[str, Cell]] = [
        ("data", table.title),
        ("command", facts.get("command") or "not recorded"),
        ("store", found["store"]),
        ("fingerprint", found["fingerprint"]),
    ]
    shown: list[Block] = [*_tables(found, table), *_curves(rows), *_pareto(rows)]
    sections: list[tuple[str, list[Block]]] = [
        ("Comparison", shown),
        *([("Differences", _differences(best["method"], differences))] if best and differences else []),
        ("Provenance", _provenance(facts, found)),
    ]
    return Part(facts["name"], "Comparison", about, numbers, warnings, sections)


def _mean(row: Value, column: str) -> float | None:
    found = row["values"].get(column)
    value = None if found is None else found["mean"]
    return value if value is not None and isfinite(value) else None


def _tables(found: Value, table: Comparison) -> list[Block]:
    """The learners, what was published beside them, and the notes to both."""
    rows = sorted(found["rows"], key=lambda row: bool(row["bound"]))  # as in the table
    cells: list[list[Cell]] = [
        [line.name, *(None if entry.mean is None else (entry.text, entry.mean) for entry in line.entries)]
        for line in table.lines
    ]
    columns, flags = ["learner", *(TITLES[column] for column in table.columns)], ("rehearsal", "transductive", "bound")
    learners = [
        [row["method"], *line[1:], *("yes" if row[flag] else "" for flag in flags), len(row["seeds"])]
        for row, line in zip(rows, cells, strict=False)
    ]
    reads = (
        "Means over the seeds, ± one standard deviation; heads sort, boxes choose whose curves are drawn. "
        "Learners that keep train rows or look at other test rows are not to be held against the others."
    )
    best = [row["method"] for row in rows if not row["bound"] and _mean(row, "last_accuracy") is not None][:TICKED]
    heads = [*columns, "keeps train rows", "transductive", "bound", "seeds"]
    marks, ticks = [f"learner-{row['method']}" for row in rows], [row["method"] in best or row["bound"] for row in rows]
    blocks: list[Block] = [Table("Learners", reads, heads, learners, marks=marks, ticks=ticks, wide=True)]
    if published := [[*line[:4], shown.part] for line, shown in zip(cells, table.lines, strict=True)][len(rows) :]:
        reads = (
            "What papers and logs report under the same protocol; not run here. Adapted backbones and routing that leaks "
            "(*) are not to be held against frozen features. Backbone and source stand in the notes, by number."
        )
        blocks.append(Table("Published numbers", reads, [*columns[:4], "backbone"], published, wide=True, grey=True))
    notes: list[tuple[str, Cell]] = [("", note) for note in table.notes]
    return [*blocks, *([Facts("Notes to the table", notes, wide=True)] if notes else [])]


def _curves(rows: Sequence[Value]) -> list[Figure]:
    found = []
    for row in rows:
        curves = [seed["accuracy_curve"] for seed in row["seeds"].values() if seed.get("accuracy_curve")]
        if curves and len({len(c) for c in curves}) == 1:
            each = [over_seeds(values) for values in zip(*curves, strict=True)]
            means, spread = [one["mean"] for one in each], [one["spread"] for one in each]
            found.append(Series(row["method"], range(1, len(means) + 1), means, spread, f"learner-{row['method']}"))
    if not found:
        return []
    reads = "Curves of the learners that are ticked in the table; the band is one standard deviation over the seeds."
    return [lines("Accuracy after each task", reads, found, "tasks learned", "accuracy (%)")]


def _pareto(rows: Sequence[Value]) -> list[Figure]:
    """Last accuracy against stored numbers, and the front of those that no other beats in both."""
    pairs = [(_mean(row, "stored_numbers"), _mean(row, "last_accuracy"), row) for row in rows]
    known = [(x, y, row) for x, y, row in pairs if x is not None and y is not None and x > 0]
    if len(known) < 2:
        return []
    best = front_of([(x, y, row["method"]) for x, y, row in known if not row["bound"]])
    front, names = [(x, y) for x, y, _ in best], [name for *_, name in best]
    points, cells = list[Point](), list[list[Cell]]()
    for x, y, row in known:
        on = row["method"] in names
        tip = f"{row['method']}: {y:.2f} % with {number(x)} stored numbers"
        points.append(Point(x, y, tip, 6 if row["bound"] else int(on)))
        cells.append([row["method"], x, y, "yes" if on else ""])
    title, x_title = "Accuracy against stored numbers", "stored numbers"
    numbers = Table("", "", ["learner", x_title, "last accuracy", "on the front"], cells)
    reads = (
        "Up and to the left is better; no other learner is both better and cheaper than those on the dashed front "
        f"({', '.join(names)}). Bounds are grey."
    )
    return [scatter(title, reads, points, x_title, "last accuracy (%)", log=True, front=front, numbers=numbers)]


def front_of(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Points that no other beats in both (x less, y more), by x."""
    front = list[tuple[float, float, str]]()
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def _differences(best: str, found: Sequence[tuple[Value, tuple[float, float | None, int]]]) -> list[Block]:
    shown, worse = list[Bar](), 0
    for row, (value, half, count) in found:
        said, (low, high) = verdict((value, half, count)), interval(value, half)
        around = "" if half is None else f", 95 % interval {low:.2f} to {high:.2f}"
        tip, more = f"{row['method']}: {value:+.2f}{around}, {said}", (low, high, count, said)
        worse += said == "worse"
        shown.append(Bar(row["method"], value, low, high, colour=int(said == "worse"), tip=tip, more=more))
    columns = ["learner", "difference", "from", "to", "seeds", "verdict"]
    reads = (
        "Points of last accuracy, paired by seed, with 95 % confidence intervals (t): one that touches zero means that "
        "these seeds do not tell the two apart. Intervals are of each pair alone, not corrected for how many there are. "
        f"{worse} of {len(shown)} learners are worse than {best} beyond chance."
    )
    return [bars(f"Difference to {best}", reads, shown, "points of last accuracy", columns, from_zero=False)]


def _provenance(facts: Value, found: Value) -> list[Block]:
    made = facts.get("made") or {"store": {"path": found["store"], "fingerprint": found["fingerprint"]}}
    more: list[tuple[str, Cell]] = [
        ("seeds", ", ".join(map(str, found["seeds"]))),
        ("class order", "shuffled by seed" if found["shuffle"] else "as listed"),
    ]
    options: list[list[Cell]] = [
        [row["method"], ", ".join(f"{k} {v}" for k, v in row["options"].items()) or "defaults", row["source"]]
        for row in found["rows"]
    ]
    reads = "Options that are not the defaults, and where each learner comes from."
    return [
        origin_facts(made, more),
        Table("Learners and their options", reads, ["learner", "options", "source"], options),
        *([repeat_facts([("as it was", facts["command"])])] if facts.get("command") else []),
    ]
