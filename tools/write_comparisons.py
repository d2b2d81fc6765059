"""Writes the tables of docs/comparisons.md from benchmarks/results/compare/, after adding what `tosca compare` measured.

python tools/write_comparisons.py [STORE NEW.csv...]

STORE is the name of a recorded table (`digits`); the lines of each NEW.csv, what `tosca compare --format csv` prints,
are added to it, or stand in the place of those of the same learners.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tosca_cache.learners import LEARNERS
from tosca_cache.report.compare import Comparison, comparison, to_csv, to_markdown

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "benchmarks" / "results" / "compare"
SEEDS = 5
LACKING = "not measured on this store yet: "
PAGE = ROOT / "docs" / "comparisons.md"


def lines_of(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a table as `tosca compare` writes it as CSV, by the name of the learner."""
    with path.open(encoding="utf-8", newline="") as file:
        return {line["method"]: line_of(line) for line in csv.DictReader(file)}


def line_of(line: dict[str, str]) -> dict[str, Any]:
    """One line, as a comparison has it."""
    if line["options"] or line["failed"]:
        raise SystemExit(f"error: {line['method']} has options or failed seeds; the page shows defaults alone")
    columns = [name.removesuffix("_mean") for name in line if name.endswith("_mean")]
    number = {name: float(text) if text else None for name, text in line.items() if name.endswith(("_mean", "_std"))}
    flags = {flag: line[flag] == "true" for flag in ("rehearsal", "transductive", "bound")}
    values = {name: {"mean": number[f"{name}_mean"], "spread": number[f"{name}_std"]} for name in columns}
    seeds = {str(seed): {} for seed in range(int(line["seeds"]))}
    return {
        "method": line["method"],
        "values": values,
        "seeds": seeds,
        "options": {},
        "failed": {},
        "leaks": None,
    } | flags


def table_of(lines: Sequence[dict[str, Any]], title: str) -> Comparison:
    """The table of some lines, the best last accuracy first."""
    ranked = sorted(lines, key=lambda line: -line["values"]["last_accuracy"]["mean"])
    common: dict[str, Any] = {"dataset": "", "shots": None, "seeds": [], "task_sizes": [0], "increment": 0}
    table = comparison({"columns": list(ranked[0]["values"]), "rows": ranked} | common)
    lacking = sorted(set(LEARNERS) - {line["method"] for line in lines})
    fewer = [f"{line['method']} ({len(line['seeds'])})" for line in ranked if len(line["seeds"]) < SEEDS]
    notes = [*table.notes, *([f"of fewer seeds: {', '.join(fewer)}"] if fewer else [])]
    return replace(table, title=title, notes=(*notes, *([f"{LACKING}{', '.join(lacking)}"] if lacking else [])))


def section(page: str, store: str, table: Comparison) -> str:
    """The page with the table of one store in the place of what stood there."""
    start = page.index(f"<!-- {store} -->") + len(f"<!-- {store} -->")
    following = re.search(r"^(## |<!-- )", page[start:], re.MULTILINE)
    stop = start + following.start() if following else len(page)
    return f"{page[:start]}\n\n{to_markdown(table).rstrip()}\n{chr(10) if following else ''}{page[stop:]}"


def main(arguments: Sequence[str]) -> None:
    """Adds what is new to one table, if anything is, and writes all tables and the page."""
    page = PAGE.read_text(encoding="utf-8")
    for path in sorted(TABLES.glob("*.csv")):
        lines = lines_of(path)
        if arguments and arguments[0] == path.stem:
            for new in arguments[1:]:
                lines |= lines_of(Path(new))
        title = page.split(f"<!-- {path.stem} -->")[1].split("**")[1]
        table = table_of(list(lines.values()), title)
        path.write_text(to_csv(table), encoding="utf-8")
        page = section(page, path.stem, table)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
