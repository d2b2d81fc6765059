"""Tables of learners: what a comparison found, or what runs gave, as one model that is written in three ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isfinite, log10, sqrt
from statistics import mean, stdev
from typing import Any

from rich.table import Table
from rich.text import Text

from tosca_cache.report.sweeps import plain
from tosca_cache.report.tables import features_words
from tosca_cache.text import latex, markdown

TITLES = {
    "average_accuracy": "A-bar (%)",
    "last_accuracy": "A_T (%)",
    "forgetting": "forgetting",
    "performance_drop": "PD",
    "harmonic_mean": "HM (%)",
    "stored_numbers": "stored numbers",
    "trainable_parameters": "trainable parameters",
    "train_seconds": "train s",
    "milliseconds": "ms a sample",
}
LATEX_TITLES = {"average_accuracy": r"$\bar{A}$ (\%)", "last_accuracy": r"$A_T$ (\%)"}
BEST = {"average_accuracy": max, "last_accuracy": max, "harmonic_mean": max, "forgetting": min, "performance_drop": min}
COUNTS, SECONDS = ("stored_numbers", "trainable_parameters"), ("train_seconds", "milliseconds")
OVER_TASKS = {"last_accuracy_over_tasks": "A_T, mean over tasks"}
OVER_TASKS |= {"average_accuracy_over_tasks": "A-bar, means over tasks"}  # published ones alone
LATIN = 0x17F  # the last letter of Latin Extended-A, which pdfLaTeX sets
BOUNDS, FROZEN = "bounds", "no"
# Of a learner that is nothing but its numbers.
PLAIN: dict[str, Any] = {
    "options": {},
    "failed": {},
    "leaks": None,
    "rehearsal": False,
    "transductive": False,
    "bound": False,
}


@dataclass(frozen=True)
class Entry:
    """One number of the table. best: bold. equal: paired seeds do not tell it from the best."""

    text: str = "-"
    mean: float | None = None
    best: bool = False
    equal: bool = False


@dataclass(frozen=True)
class Line:
    """One learner. name: with its star and the numbers of its notes.

    part: of the table, below a rule, where numbers are no rivals of those above it; empty for the learners.
    """

    name: str
    entries: Sequence[Entry]
    part: str


@dataclass(frozen=True)
class Comparison:
    """A table of learners. columns: names of the measured values. notes: what stands below it."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Line]
    notes: Sequence[str]


def comparison(found: Mapping[str, Any]) -> Comparison:
    """The table of what `tosca compare` found."""
    shots = f", {found['shots']} shots" if found["shots"] else ""
    seeds = f"{'seeds' if len(found['seeds']) > 1 else 'seed'} {', '.join(map(str, found['seeds']))}"
    title = f"{found['dataset']}: {_tasks(found)}{shots}, {seeds}"
    return table_of(title, found["columns"], found["rows"], found.get("published") or ())


def table_of(
    title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]] = ()
) -> Comparison:
    """The table of some learners: bounds last, a star and notes where a row needs them, the best marked."""
    notes = list[str]()
    ordered = sorted(rows, key=lambda row: bool(row["bound"]))
    entries = _marked([[entry_of(row["values"].get(c), c) for c in columns] for row in ordered], columns, ordered)
    lines = [
        Line(_name(row, notes), found, BOUNDS if row["bound"] else "")
        for row, found in zip(ordered, entries, strict=True)
    ]
    order = sorted(published, key=lambda row: (row["adapted"] != FROZEN, row["method"]))
    lines += published_lines(order, columns, notes)
    return Comparison(title, columns, lines, (*_legend(ordered), *notes))


def _tasks(found: Mapping[str, Any]) -> str:
    features = features_words(found)
    if found.get("incremental") == "domains":
        return f"{len(found['domains'])} domains, one a task{features}"
    sizes = found["task_sizes"]
    if found["increment"] is None:
        return f"{len(sizes)} tasks of {', '.join(map(str, sizes))} classes{features}"
    return f"{len(sizes)} tasks, {sizes[0]} classes first, {found['increment']} each{features}"


def _name(row: Mapping[str, Any], notes: list[str]) -> str:
    """The name of a learner; what is to be said of it is added to the notes under a number."""
    options = ", ".join(f"{name} {plain(value)}" for name, value in row["options"].items())
    said = [options, f"its routing {row['leaks']}" if row["leaks"] else ""]
    chance = {seed: found["below_chance"] for seed, found in row["seeds"].items() if found.get("below_chance")}
    said += [f"with seed {', '.join(seeds)}, {text}" for text, seeds in _by_reason(chance).items()]
    said += [f"failed with seed {', '.join(seeds)}: {text}" for text, seeds in _by_reason(row["failed"]).items()]
    numbers = "".join(numbered(f"{row['method']}: {text}", notes) for text in said if text)
    star = "*" if row["rehearsal"] or row["transductive"] else ""
    return f"{row['method']}{star} {numbers}".rstrip()


def _by_reason(failed: Mapping[str, str]) -> dict[str, list[str]]:
    by_reason: dict[str, list[str]] = {}
    for seed, reason in failed.items():
        by_reason.setdefault(str(reason), []).append(str(seed))
    return by_reason


def numbered(text: str, notes: list[str]) -> str:
    """The number under which a note stands; one that is there already is not said again."""
    known = [note.partition("] ")[2] for note in notes]
    if text not in known:
        notes.append(f"[{len(notes) + 1}] {text}")
    return f"[{[*known, text].index(text) + 1}]"


def published_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], notes: list[str]) -> list[Line]:
    """Published numbers as lines, a star where routing leaks; what they are of is added to the notes."""
    lines = []
    for row in rows:
        said = [f"{row['source']} ({row['kind']}), {row['backbone']}", row["features"], row["note"]]
        said.append("" if row["adapted"] == FROZEN else f"adapted: {row['adapted']}")
        said.append(f"routing by {row['routing']}" if row["routing"] else "")
        entries = [entry_of(row["values"].get(column), column) for column in columns]
        if any(entry.mean is not None for entry in entries):
            number = numbered(f"published: {'; '.join(filter(None, said))}", notes)
            part = f"published, {'frozen' if row['adapted'] == FROZEN else 'adapted'} backbone"
            lines.append(Line(f"{row['method']}{'*' if row['routing'] else ''} {number}", entries, part))
    return lines


def _legend(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    said = {
        "rehearsal": "* keeps train rows of earlier tasks (rehearsal)",
        "transductive": "* its answer may depend on the other test rows (transductive)",
        "bound": "bounds, not learners to be compared with",
    }
    named = {word: sorted(row["method"] for row in rows if row[word]) for word in said}
    return [f"{text}: {', '.join(named[word])}" for word, text in said.items() if named[word]]


def entry_of(value: Mapping[str, float | None] | None, column: str) -> Entry:
    """A mean and its standard deviation over seeds as they are shown in a column."""
    average, spread = (None, None) if value is None else (value["mean"], value["spread"])
    if average is None or not isfinite(average):
        return Entry()
    if column in COUNTS:
        return Entry(f"{average:,.0f}" + (f" ± {spread:,.0f}" if spread else ""), average)
    # Three digits of seconds, at most six behind the point.
    places = min(max(2 - floor(log10(average)), 0), 6) if column in SECONDS and average > 0 else 2
    return Entry(f"{average:.{places}f}" + ("" if spread is None else f" ± {spread:.{places}f}"), average)


def _marked(
    entries: Sequence[Sequence[Entry]], columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> list[list[Entry]]:
    """The best of each column marked (equal to two places is equal), and what equals the best last accuracy; no bounds."""
    found = [list(line) for line in entries]
    rivals = [n for n, row in enumerate(rows) if not row["bound"]]
    for c, column in enumerate(columns):
        known = [n for n in rivals if found[n][c].mean is not None]
        if column not in BEST or not known:
            continue
        best = BEST[column](known, key=lambda n: found[n][c].mean or 0.0)
        for n in known:
            same = f"{found[n][c].mean:.2f}" == f"{found[best][c].mean:.2f}"
            told = paired(rows[n], rows[best]) if column == "last_accuracy" and not same else None
            equal = told is not None and verdict(told) == "not told apart"
            found[n][c] = replace(found[n][c], best=same, equal=equal)
    return found


def paired(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float | None, int] | None:
    """Mean difference in last accuracy over common seeds, half of its 95 % confidence interval (t), and how many seeds."""
    pairs = [
        (one["seeds"][s].get("last_accuracy"), other["seeds"][s].get("last_accuracy"))
        for s in one["seeds"]
        if s in other["seeds"]
    ]
    found = [a - b for a, b in pairs if a is not None and b is not None]
    if not found:
        return None
    half = None
    if len(found) > 1:
        from scipy.special import stdtrit

        half = float(stdtrit(len(found) - 1, 0.975)) * stdev(found) / sqrt(len(found))
    return mean(found), half, len(found)


def verdict(difference: tuple[float, float | None, int]) -> str:
    """What may be said of a difference: "better" or "worse" only where the interval leaves out zero."""
    value, half, _ = difference
    if half is None:
        return "one seed: cannot be told"
    if half < 1e-6:  # both depend on the seed in the same way, or not at all
        return "the same with every seed: cannot be told"
    return "better" if value - half > 0 else "worse" if value + half < 0 else "not told apart"


def to_table(found: Comparison, *, marks: bool = False) -> Table:
    """For the terminal. marks: write the best **so**, for places that have no bold type."""
    table = Table("method", title=found.title)
    for column in found.columns:
        table.add_column((TITLES | OVER_TASKS)[column], justify="right")
    for line, following in zip(found.lines, (*found.lines[1:], None), strict=True):
        cells = [f"**{e.text}**" if e.best and marks else Text(e.text, "bold" if e.best else "") for e in line.entries]
        table.add_row(Text(line.name), *cells, end_section=following is not None and following.part != line.part)
    return table


def to_markdown(found: Comparison) -> str:
    """A table with a caption above and its notes below; the best are bold, what equals them is in italics."""
    titles = [TITLES[column].replace("_", r"\_") for column in found.columns]
    head = [f"**{markdown(found.title)}**", "", f"| method | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    lines, part = head, ""
    for line in found.lines:
        if line.part != part:
            part = line.part
            lines.append(f"| *{part}* |{'  |' * len(titles)}")
        entries = [f"**{e.text}**" if e.best else f"*{e.text}*" if e.equal else e.text for e in line.entries]
        lines.append(f"| {markdown(line.name)} | {' | '.join(entries)} |")
    return "\n".join([*lines, "", *(f"{markdown(note)}  " for note in found.notes)]).rstrip() + "\n"


def to_latex(found: Comparison) -> str:
    """A table float for the package booktabs."""
    titles = [LATEX_TITLES.get(column, latex(TITLES[column])) for column in found.columns]
    needs = "% needs \\usepackage{booktabs}"
    if any(ord(letter) > LATIN for line in found.lines for letter in line.name):
        needs += "; names in letters beyond Latin need LuaLaTeX or XeLaTeX, and a font that has them"
    lines, part = list[str](), ""
    for line in found.lines:
        lines += [r"\midrule"] * (line.part != part)
        part = line.part
        marks = [r"\textbf{%s}" if e.best else r"\underline{%s}" if e.equal else "%s" for e in line.entries]
        entries = [mark % latex(e.text) for mark, e in zip(marks, line.entries, strict=True)]
        lines.append(f"{latex(line.name)} & {' & '.join(entries)} \\\\")
    caption, columns = f"\\caption{{{latex(found.title)}}}", f"\\begin{{tabular}}{{l{'r' * len(titles)}}}"
    head = [needs, r"\begin{table}", r"\centering", caption, columns, r"\toprule"]
    notes = [f"\\par\\footnotesize {latex(note)}" for note in found.notes]
    titled = [f"method & {' & '.join(titles)} \\\\", r"\midrule"]
    return "\n".join([*head, *titled, *lines, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}"]) + "\n"
