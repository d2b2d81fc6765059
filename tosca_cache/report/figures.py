"""Pictures of a run: the accuracy curve and the accuracy matrix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.report.tables import features_words

CURVE, MATRIX = "accuracy-curve.png", "accuracy-matrix.png"


def save_figures(metrics: Mapping[str, Any], folder: Path) -> None:
    """Draws both pictures of a run from its metrics (see metrics.json) into `folder`."""
    _curve(metrics, folder / CURVE)
    _matrix(metrics, folder / MATRIX)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # no window system, no global state
    return figure, figure.add_subplot()


def _title(metrics: Mapping[str, Any]) -> str:
    title = f"{metrics['dataset']}, router {metrics['router']}{features_words(metrics)}"
    return f"{title}\n(routing {metrics['leaks']})" if metrics.get("leaks") else title


def _curve(metrics: Mapping[str, Any], path: Path) -> None:
    figure, axes = _figure(6.4, 4.0)
    tasks = np.arange(1, len(metrics["accuracy_curve"]) + 1)
    for seed in metrics["seeds"].values():
        R = np.array(seed["R"], dtype=float)
        axes.plot(tasks, R.diagonal(), color="0.75", linewidth=1, zorder=1)
    seen = "domains" if metrics.get("incremental") == "domains" else "classes"
    axes.plot([], [], color="0.75", linewidth=1, label="task just learned")
    axes.plot(tasks, metrics["accuracy_curve"], marker="o", color="C0", label=f"all {seen} seen")
    axes.axhline(metrics["average_accuracy"], color="C0", linestyle=":", linewidth=1)
    axes.annotate(
        f"average {metrics['average_accuracy']:.2f}", (1, metrics["average_accuracy"]), color="C0", va="bottom"
    )
    axes.set(xlabel="tasks learned", ylabel="accuracy (%)")
    _write_title(axes, metrics)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower left", frameon=False)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _matrix(metrics: Mapping[str, Any], path: Path) -> None:
    R = np.array(metrics["R"], dtype=float)
    T = len(R)
    figure, axes = _figure(1.8 + 0.5 * max(T, 4), 1.4 + 0.42 * max(T, 4))
    image = axes.imshow(R, cmap="viridis", vmin=np.nanmin(R) // 10 * 10, vmax=100)
    for i in range(T):
        for j in range(i + 1):
            dark = image.norm(R[i, j]) < 0.6
            axes.text(j, i, f"{R[i, j]:.0f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set(xlabel="test rows of task", ylabel="after task")
    _write_title(axes, metrics)
    ticks = np.arange(T)
    axes.set_xticks(ticks, ticks + 1)
    axes.set_yticks(ticks, ticks + 1)
    figure.colorbar(image, label="accuracy (%)")
    _save(figure, path)


def _write_title(axes: Any, metrics: Mapping[str, Any]) -> None:
    """The name of a dataset is text, also if it has dollar signs, which mean formulas to matplotlib."""
    axes.set_title(_title(metrics)).set_parse_math(False)


def _save(figure: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a name in a script that the font lacks
        figure.savefig(path, dpi=120)
