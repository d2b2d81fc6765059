"""Writes the tables of docs/comparisons.md from benchmarks/results/compare/, after adding what `tosca compare` measured.

python tools/write_comparisons.py [STORE NEW.json...]

STORE is the name of a recorded table (`digits`); the rows of each NEW.json, what `tosca compare --json` prints,
are added to it, or stand in the place of those of the same learners.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tosca_cache.learners import LEARNERS
from tosca_cache.report.compare import PLAIN, Comparison, table_of, to_markdown

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "benchmarks" / "results" / "compare"
SEEDS = 5
LACKING = "not measured on this store yet: "
PAGE = ROOT / "docs" / "comparisons.md"


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a recorded table, or of what `tosca compare --json` printed, by the name of the learner."""
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = found["rows"] if isinstance(found, dict) else found
    for row in rows:
        if row.get("options") or row.get("failed"):
            raise SystemExit(f"error: {row['method']} has options or failed seeds; the page shows defaults alone")
    kept = ("method", "values", "seeds", "rehearsal", "transductive", "bound")
    plain = [{name: row[name] for name in kept} for row in rows]
    return {row["method"]: row | {"seeds": len(row["seeds"])} if isinstance(found, dict) else row for row in plain}


def page_table(rows: Sequence[dict[str, Any]], title: str) -> Comparison:
    """The table of some rows, which are ranked, as the page has it."""
    table = table_of(title, list(rows[0]["values"]), [PLAIN | row | {"seeds": {}} for row in rows])
    lacking = sorted(set(LEARNERS) - {row["method"] for row in rows})
    fewer = [f"{row['method']} ({row['seeds']})" for row in rows if row["seeds"] < SEEDS]
    notes = [*table.notes, *([f"of fewer seeds: {', '.join(fewer)}"] if fewer else [])]
    return replace(table, notes=(*notes, *([f"{LACKING}{', '.join(lacking)}"] if lacking else [])))


def section(page: str, store: str, table: Comparison) -> str:
    """The page with the table of one store in the place of what stood there."""
    start = page.index(f"<!-- {store} -->") + len(f"<!-- {store} -->")
    following = re.search(r"^(## |<!-- )", page[start:], re.MULTILINE)
    stop = start + following.start() if following else len(page)
    return f"{page[:start]}\n\n{to_markdown(table).rstrip()}\n{chr(10) if following else ''}{page[stop:]}"


def main(arguments: Sequence[str]) -> None:
    """Adds what is new to one table, if anything is, and writes all tables and the page."""
    page = PAGE.read_text(encoding="utf-8")
    for path in sorted(TABLES.glob("*.json")):
        rows = rows_of(path)
        if arguments and arguments[0] == path.stem:
            for new in arguments[1:]:
                rows |= rows_of(Path(new))
        ranked = sorted(rows.values(), key=lambda row: (row["bound"], -row["values"]["last_accuracy"]["mean"]))
        title = page.split(f"<!-- {path.stem} -->")[1].split("**")[1]
        lines = ",\n".join(json.dumps(row) for row in ranked)
        path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        page = section(page, path.stem, page_table(ranked, title))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
