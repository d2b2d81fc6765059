"""What every benchmark shares: machine facts, medians, and the JSON that README figures come from."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from tosca_cache.devices import describe_machine

RESULTS = Path(__file__).parent / "results"


def repeat(measure: Callable[[], dict[str, float]], times: int) -> dict[str, float]:
    """Median of each figure over `times` runs of `measure`."""
    runs = [measure() for _ in range(times)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def report(script: str, sizes: dict[str, Any], figures: dict[str, Any], lines: Sequence[str]) -> None:
    """Prints the lines and writes results/SCRIPT.json."""
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    value = {"date": str(date.today()), "machine": describe_machine(device), "sizes": sizes, "figures": figures}
    (RESULTS / f"{script}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
