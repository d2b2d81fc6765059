"""Draws docs/images/grocery.svg from results/readme_chart.json: what five learners know after each task.

    tosca compare --dataset grocery --backbone vit_small_patch14_dinov2 --increment 9 \
        --methods tosca,simplecil,slda,ranpac,pool --seeds 5 --json > benchmarks/results/readme_chart.json
    python benchmarks/readme_chart.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from common import RESULTS

mpl.use("svg")
from matplotlib import pyplot as plt  # after its backend is chosen

NAMES = {
    "pool": "opinion pool (ours, nothing trained)",
    "slda": "streaming LDA",
    "ranpac": "RanPAC",
    "simplecil": "class means (SimpleCIL)",
    "tosca": "TOSCA, a sample at a time",
}


def main() -> None:
    table = json.loads((RESULTS / "readme_chart.json").read_text(encoding="utf-8"))
    rows = {row["method"]: row for row in table["rows"]}
    mpl.rcParams.update({"svg.hashsalt": "tosca", "font.size": 9})
    figure, axes = plt.subplots(figsize=(8, 2.9), layout="constrained")
    for name, title in NAMES.items():
        curves = np.array([seed["accuracy_curve"] for seed in rows[name]["seeds"].values()])  # [seeds, tasks]
        classes = np.cumsum(table["task_sizes"])
        axes.plot(classes, curves.mean(0), marker="o", markersize=3, label=f"{title}: {curves[:, -1].mean():.1f} %")
    axes.set(xlabel="classes learned", ylabel="accuracy over all of them (%)", ylim=(0, 101))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    target = Path(__file__).parents[1] / "docs" / "images" / "grocery.svg"
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
