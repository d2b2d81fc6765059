"""Pictures of a run: the accuracy curve and the accuracy matrix."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.report.tables import features_words, of_domains

CURVE, MATRIX = "accuracy-curve.png", "accuracy-matrix.png"


def save_figures(metrics: Mapping[str, Any], folder: Path) -> None:
    """Draws both pictures of a run from its metrics (see metrics.json) into `folder`."""
    T, average = len(metrics["R"]), metrics["average_accuracy"]
    tasks = np.arange(1, T + 1)
    with _picture(metrics, folder / CURVE, 6.4, 4.0) as (_, axes):
        for seed in metrics["seeds"].values():
            axes.plot(tasks, np.array(seed["R"], dtype=float).diagonal(), color="0.75", linewidth=1, zorder=1)
        axes.plot([], [], color="0.75", linewidth=1, label="task just learned")
        seen = f"all {'domains' if of_domains(metrics) else 'classes'} seen"
        axes.plot(tasks, metrics["accuracy_curve"], marker="o", color="C0", label=seen)
        axes.axhline(average, color="C0", linestyle=":", linewidth=1)
        axes.annotate(f"average {average:.2f}", (1, average), color="C0", va="bottom")
        axes.set(xlabel="tasks learned", ylabel="accuracy (%)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="lower left", frameon=False)
        axes.grid(alpha=0.3)
    R = np.array(metrics["R"], dtype=float)
    with _picture(metrics, folder / MATRIX, 1.8 + 0.5 * max(T, 4), 1.4 + 0.42 * max(T, 4)) as (figure, axes):
        image = axes.imshow(R, cmap="viridis", vmin=np.nanmin(R) // 10 * 10, vmax=100)
        for i, j in zip(*np.tril_indices(T), strict=True):
            color = "white" if image.norm(R[i, j]) < 0.6 else "black"
            axes.text(j, i, f"{R[i, j]:.0f}", ha="center", va="center", fontsize=8, color=color)
        axes.set(xlabel="test rows of task", ylabel="after task")
        axes.set_xticks(tasks - 1, tasks)
        axes.set_yticks(tasks - 1, tasks)
        figure.colorbar(image, label="accuracy (%)")


@contextmanager
def _picture(metrics: Mapping[str, Any], path: Path, width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, which are saved at the end; the title is text, also if it has dollar signs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # no window system, no global state
    axes = figure.add_subplot()
    title = f"{metrics['dataset']}, router {metrics['router']}{features_words(metrics)}"
    title += f"\n(routing {metrics['leaks']})" if metrics.get("leaks") else ""
    axes.set_title(title).set_parse_math(False)
    yield figure, axes
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a name in a script that the font lacks
        figure.savefig(path, dpi=120)
