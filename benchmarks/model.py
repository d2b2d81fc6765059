"""A model in use: teaching a class, predicting, opening; beside scikit-learn refitted on all rows.

Measured: seconds to teach one new class of 20 cached photos to models of 200 classes (30 photos each, 768 dimensions), rows
predicted a second, seconds to open a model from its folder (beyond imports). Against: LinearDiscriminantAnalysis and
LogisticRegression of scikit-learn, which have to be fitted on all rows again to learn a class.

    python benchmarks/model.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import report
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from tosca_cache.model.classifier import Model
from tosca_cache.model.records import Lesson
from tosca_cache.model.teaching import row_digests

CLASSES, PHOTOS, NEW, DIM = 200, 30, 20, 768
METHODS = ("nmc", "lda", "ranpac", "pool")
ASKED = 20_000
AIMS = {
    "teach a class to pool (s)": 0.3,
    "rows a second, nmc and lda": 50_000,
    "rows a second, pool": 5_000,
    "open (s)": 0.05,
}


def features(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows [n, d] of classes whose means lie among each other as those of a frozen backbone do."""
    means = np.random.default_rng(0).normal(size=(CLASSES + 16, DIM))
    noise = np.random.default_rng(seed).normal(size=(len(labels), DIM)) * np.linspace(3, 0.3, DIM)
    return (means[labels] + noise).astype(np.float32)


def lesson(labels: np.ndarray, seed: int) -> Lesson:
    """Rows of some classes as a lesson."""
    rows = features(labels, seed)
    return Lesson(rows[:, None], [f"class {label:03d}" for label in labels], row_digests(rows))


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure_model(method: str, repeats: int) -> dict[str, float]:
    """Medians of one learner."""
    model = Model.create(DIM, method=method)
    first = timed(lambda: model.learn(lesson(np.repeat(np.arange(CLASSES), PHOTOS), 1)))
    teach = [timed(lambda n=n: model.learn(lesson(np.full(NEW, CLASSES + n), 2 + n))) for n in range(repeats + 1)][1:]
    asked = features(np.arange(ASKED) % CLASSES, 9)
    model.predict(asked[:100])
    predict = [timed(lambda: model.predict(asked)) for _ in range(repeats)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.tosca"
        save = timed(lambda: model.save(path))
        opened = [timed(lambda: Model.open(path)) for _ in range(repeats)]
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return {
        "learn_first_s": first,
        "teach_one_class_s": median(teach),
        "rows_per_s": ASKED / median(predict),
        "save_s": save,
        "open_s": median(opened),
        "megabytes": size / 1e6,
    }


def measure_sklearn(repeats: int) -> dict[str, dict[str, float]]:
    """Medians of classifiers that are fitted again on all rows with the new class."""
    labels = np.concatenate([np.repeat(np.arange(CLASSES), PHOTOS), np.full(NEW, CLASSES)])
    rows, asked = features(labels, 1), features(np.arange(ASKED) % CLASSES, 9)
    found = {}
    for name, make in (
        ("LinearDiscriminantAnalysis", lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        ("LogisticRegression", lambda: LogisticRegression(max_iter=100)),
    ):
        made = make()
        fit = [timed(lambda made=made: made.fit(rows, labels)) for _ in range(repeats if "Linear" in name else 1)]
        predict = [timed(lambda made=made: made.predict_proba(asked)) for _ in range(repeats)]
        found[name] = {"teach_one_class_s": median(fit), "rows_per_s": ASKED / median(predict)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    measure_model("nmc", 1)  # warm
    found = {name: measure_model(name, arguments.repeats) for name in METHODS} | measure_sklearn(arguments.repeats)
    lines = [f"{name:28}" + "  ".join(f"{k} {v:.4g}" for k, v in values.items()) for name, values in found.items()]
    lines += [f"aim: {name}: {aim}" for name, aim in AIMS.items()]
    sizes = {"classes": CLASSES, "photos": PHOTOS, "new": NEW, "dim": DIM, "repeats": arguments.repeats}
    report("model", sizes, found, lines)


if __name__ == "__main__":
    main()
