"""The table of a comparison: one model of it, and four ways to write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isfinite, log10
from typing import Any

from rich.table import Table
from rich.text import Text

from tosca_cache.report.sweeps import plain
from tosca_cache.report.tables import features_words
from tosca_cache.text import csv_text, latex, markdown

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
HIGHEST = ("average_accuracy", "last_accuracy", "harmonic_mean")
LOWEST = ("forgetting", "performance_drop")
COUNTS = ("stored_numbers", "trainable_parameters")
LATIN = 0x17F  # the last letter of Latin Extended-A, which pdfLaTeX sets
NONE = "-"
BOUNDS, FROZEN = "bounds", "no"
# What a published row says of itself where the others say more.
PUBLISHED: Mapping[str, Any] = {
    "options": {},
    "failed": {},
    "rehearsal": False,
    "transductive": False,
    "bound": False,
}


@dataclass(frozen=True)
class Entry:
    """One number of the table: its text, as it stands everywhere but in CSV, and what it was made of.

    best: bold. equal: paired seeds do not tell it from the best.
    """

    text: str
    mean: float | None
    spread: float | None
    best: bool = False
    equal: bool = False

    def marked(self, best: str, equal: str) -> str:
        """Its text in the format of the best, of those that equal it, or as it is."""
        return best.format(self.text) if self.best else equal.format(self.text) if self.equal else self.text


@dataclass(frozen=True)
class Line:
    """One learner. name: with its star and the numbers of its notes. row: as in the comparison.

    part: of the table, below a rule, where numbers are no rivals of those above it; empty for the learners.
    """

    name: str
    row: Mapping[str, Any]
    entries: tuple[Entry, ...]
    part: str


@dataclass(frozen=True)
class Comparison:
    """The table of a comparison. columns: names of the measured values. notes: what stands below it."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def comparison(found: Mapping[str, Any]) -> Comparison:
    """The table of what `tosca compare` found: bounds last, a star and notes where a row needs them, the best marked."""
    columns, notes = tuple(found["columns"]), list[str]()
    lines = [_line(row, columns, notes) for row in sorted(found["rows"], key=lambda row: bool(row["bound"]))]
    lines += _published(found, columns, notes)
    lines = [_marked(line, columns, lines) for line in lines]
    shots = f", {found['shots']} shots" if found["shots"] else ""
    seeds = ", ".join(map(str, found["seeds"]))
    return Comparison(
        f"{found['dataset']}: {_tasks(found)}{shots}, {'seeds' if len(found['seeds']) > 1 else 'seed'} {seeds}",
        columns,
        tuple(lines),
        (*_legend(found["rows"]), *notes),
    )


def _tasks(found: Mapping[str, Any]) -> str:
    features = features_words(found)
    if found.get("incremental") == "domains":
        return f"{len(found['domains'])} domains, one a task{features}"
    sizes = found["task_sizes"]
    if found["increment"] is None:
        return f"{len(sizes)} tasks of {', '.join(map(str, sizes))} classes{features}"
    return f"{len(sizes)} tasks, {sizes[0]} classes first, {found['increment']} each{features}"


def _line(row: Mapping[str, Any], columns: Sequence[str], notes: list[str]) -> Line:
    """One line; what is to be said of it is added to the notes under a number."""
    said = []
    if row["options"]:
        said.append(", ".join(f"{name} {plain(value)}" for name, value in row["options"].items()))
    if row["leaks"]:
        said.append(f"its routing {row['leaks']}")
    for text, seeds in _failures(_below_chance(row)).items():
        said.append(f"with seed {', '.join(seeds)}, {text}")
    for reason, seeds in _failures(row["failed"]).items():
        said.append(f"failed with seed {', '.join(seeds)}: {reason}")
    numbers = []
    for text in said:
        notes.append(f"[{len(notes) + 1}] {row['method']}: {text}")
        numbers.append(f"[{len(notes)}]")
    name = row["method"] + ("*" if starred(row) else "") + (f" {''.join(numbers)}" if numbers else "")
    return Line(name, row, _entries(row, columns), BOUNDS if row["bound"] else "")


def _published(found: Mapping[str, Any], columns: Sequence[str], notes: list[str]) -> list[Line]:
    """The published numbers of a comparison as lines: of frozen backbones first, then of adapted ones."""
    lines, numbers = [], dict[str, str]()
    for row in sorted(found.get("published", ()), key=lambda row: (row["adapted"] != FROZEN, row["method"])):
        said = [f"{row['source']} ({row['kind']}), {row['backbone']}", row["features"], row["note"]]
        said.append("" if row["adapted"] == FROZEN else f"adapted: {row['adapted']}")
        said.append(f"routing by {row['routing']}" if row["routing"] else "")
        text = "; ".join(filter(None, said))
        if text not in numbers:
            notes.append(f"[{len(notes) + 1}] published: {text}")
            numbers[text] = f"[{len(notes)}]"
        part = f"published, {'frozen' if row['adapted'] == FROZEN else 'adapted'} backbone"
        name = row["method"] + ("*" if row["routing"] else "")
        lines.append(Line(f"{name} {numbers[text]}", PUBLISHED | row, _entries(row, columns), part))
    return [line for line in lines if any(entry.mean is not None for entry in line.entries)]


def _entries(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[Entry, ...]:
    return tuple(entry_of(row["values"].get(column), column) for column in columns)


def starred(row: Mapping[str, Any]) -> bool:
    """Whether a learner keeps train rows or looks at other test rows, so that others cannot be held against it."""
    return bool(row["rehearsal"] or row["transductive"])


def _below_chance(row: Mapping[str, Any]) -> dict[str, str]:
    return {seed: found["below_chance"] for seed, found in row["seeds"].items() if found.get("below_chance")}


def _failures(failed: Mapping[str, str]) -> dict[str, list[str]]:
    by_reason: dict[str, list[str]] = {}
    for seed, reason in failed.items():
        by_reason.setdefault(str(reason), []).append(str(seed))
    return by_reason


def _legend(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    said = []
    for word, meaning in (
        ("rehearsal", "keeps train rows of earlier tasks (rehearsal)"),
        ("transductive", "its answer may depend on the other test rows (transductive)"),
    ):
        if names := sorted(row["method"] for row in rows if row[word]):
            said.append(f"* {meaning}: {', '.join(names)}")
    if bounds := sorted(row["method"] for row in rows if row["bound"]):
        said.append(f"bounds, not learners to be compared with: {', '.join(bounds)}")
    return said


def entry_of(value: Mapping[str, float | None] | None, column: str) -> Entry:
    """A mean and its standard deviation over seeds as they are shown in a column."""
    mean, spread = (None, None) if value is None else (value["mean"], value["spread"])
    if mean is None or not isfinite(mean):
        return Entry(NONE, None, None)
    if column in COUNTS:
        shown = f"{mean:,.0f}" + (f" ± {spread:,.0f}" if spread else "")
    else:
        places = 2 if column in (*HIGHEST, *LOWEST) else _places(mean)
        shown = f"{mean:.{places}f}" + ("" if spread is None else f" ± {spread:.{places}f}")
    return Entry(shown, mean, spread)


def _places(mean: float) -> int:
    """Places behind the point that show three digits, at most six."""
    return 2 if mean <= 0 else min(max(2 - floor(log10(mean)), 0), 6)


def _marked(line: Line, columns: Sequence[str], lines: Sequence[Line]) -> Line:
    """The line with its best entries marked; bounds do not count. Equal to two places is equal."""
    if line.part:
        return line
    entries = []
    for number, (column, entry) in enumerate(zip(columns, line.entries, strict=True)):
        means = [mean for other in lines if not other.part and (mean := other.entries[number].mean) is not None]
        choose = max if column in HIGHEST else min if column in LOWEST else None
        best = choose is not None and entry.mean is not None and f"{entry.mean:.2f}" == f"{choose(means):.2f}"
        entries.append(replace(entry, best=best))
    return replace(line, entries=tuple(entries))


def to_table(found: Comparison, *, marks: bool = False) -> Table:
    """For the terminal. marks: write the best **so**, for places that have no bold type."""
    table = Table("method", title=found.title, caption="\n".join(found.notes), caption_justify="left")
    for column in found.columns:
        table.add_column(TITLES[column], justify="right")
    for line, following in zip(found.lines, (*found.lines[1:], None), strict=True):
        cells = [_marked_text(entry, marks) for entry in line.entries]
        ends = following is not None and following.part != line.part
        table.add_row(Text(line.name), *cells, end_section=ends)
    return table


def _marked_text(entry: Entry, marks: bool) -> Text:
    return Text(f"**{entry.text}**" if entry.best and marks else entry.text, style="bold" if entry.best else "")


def to_csv(found: Comparison) -> str:
    """A line a learner: mean and standard deviation of every column, unrounded; empty where there is none."""
    numbers = [f"{column}_{part}" for column in found.columns for part in ("mean", "std")]
    rows: list[list[object]] = [
        ["method", *numbers, "seeds", "rehearsal", "transductive", "bound", "options", "failed", "published"]
    ]
    for line in found.lines:
        row = line.row
        values = [number for entry in line.entries for number in (entry.mean, entry.spread)]
        flags = [str(bool(row[flag])).lower() for flag in ("rehearsal", "transductive", "bound")]
        options = "; ".join(f"{name}={plain(value)}" for name, value in row["options"].items())
        failed = "; ".join(f"{seed}: {reason}" for seed, reason in row["failed"].items())
        seeds = row["seeds"]
        source = "" if isinstance(seeds, Mapping) else f"{row['source']}; {line.part.removeprefix('published, ')}"
        count = len(seeds) if isinstance(seeds, Mapping) else seeds
        rows.append([row["method"], *values, count, *flags, options, failed, source])
    return csv_text(rows)


def to_markdown(found: Comparison) -> str:
    """A table with a caption above and its notes below; the best are bold."""
    titles = [TITLES[column].replace("_", r"\_") for column in found.columns]
    lines = [
        f"**{markdown(found.title)}**",
        "",
        f"| method | {' | '.join(titles)} |",
        f"|---|{'---:|' * len(titles)}",
    ]
    for line, before in zip(found.lines, (None, *found.lines[:-1]), strict=True):
        if line.part and (before is None or line.part != before.part):
            lines.append(f"| *{line.part}* |{'  |' * len(titles)}")
        entries = [entry.marked("**{}**", "*{}*") for entry in line.entries]
        lines.append(f"| {markdown(line.name)} | {' | '.join(entries)} |")
    return "\n".join([*lines, "", *(f"{markdown(note)}  " for note in found.notes)]).rstrip() + "\n"


def to_latex(found: Comparison) -> str:
    """A table float for the package booktabs."""
    titles = [LATEX_TITLES.get(column, latex(TITLES[column])) for column in found.columns]
    needs = "% needs \\usepackage{booktabs}"
    if any(ord(letter) > LATIN for line in found.lines for letter in line.name):
        needs += "; names in letters beyond Latin need LuaLaTeX or XeLaTeX, and a font that has them"
    lines = [
        needs,
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{latex(found.title)}}}",
        f"\\begin{{tabular}}{{l{'r' * len(titles)}}}",
        r"\toprule",
        f"method & {' & '.join(titles)} \\\\",
        r"\midrule",
    ]
    for line, before in zip(found.lines, (None, *found.lines[:-1]), strict=True):
        if before is not None and line.part != before.part:
            lines.append(r"\midrule")
        entries = [
            replace(entry, text=latex(entry.text)).marked(r"\textbf{{{}}}", r"\underline{{{}}}")
            for entry in line.entries
        ]
        lines.append(f"{latex(line.name)} & {' & '.join(entries)} \\\\")
    notes = [f"\\par\\footnotesize {latex(note)}" for note in found.notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}"]) + "\n"


FORMATS: Mapping[str, Callable[[Comparison], str]] = {"csv": to_csv, "markdown": to_markdown, "latex": to_latex}
