"""docs/comparisons.md says what the recorded tables of benchmarks/results/compare say, about every learner there is."""

import json
import re
from pathlib import Path

import pytest

from tosca_cache.learners import LEARNERS

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "benchmarks" / "results" / "compare").glob("*.json"))
PAGE = (ROOT / "docs" / "comparisons.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_the_page_has_the_recorded_numbers(path):
    assert len(TABLES) == 4, "stores"
    recorded = {row["method"]: row["values"] for row in json.loads(path.read_text(encoding="utf-8"))}
    section = PAGE.split(f"<!-- {path.stem} -->")[1].split("<!--")[0]
    shown = dict(re.findall(r"^\| ([a-z0-9-]+)(?:\\\*)? \| (.*) \|$", section, re.MULTILINE))
    shown.pop("method")
    lacking = re.findall(r"^not measured on this store yet: (.*?) *$", section, re.MULTILINE)
    newer = set(lacking[0].split(", ")) if lacking else set()
    assert recorded.keys() == shown.keys() == set(LEARNERS) - newer, "every learner there is, or it says which it lacks"
    for name, row in recorded.items():
        numbers = [cell.strip("* ") for cell in shown[name].split("|")[:3]]
        for text, column in zip(numbers, ("average_accuracy", "last_accuracy", "forgetting"), strict=True):
            mean, spread = (float(part) for part in text.split(" ± "))
            assert mean == pytest.approx(row[column]["mean"], abs=0.0051)
            assert spread == pytest.approx(row[column]["spread"], abs=0.0051)
