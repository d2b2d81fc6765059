"""Learners as classifiers of scikit-learn: `fit`, `partial_fit` with new labels at any time, `predict_proba`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from tosca_cache.errors import ModelError, UsageError
from tosca_cache.model.classifier import Model
from tosca_cache.model.records import DIGEST, Lesson

__all__ = ["FeatureClassifier"]

FLOAT = np.float32
_OF_KIND: Mapping[str, Callable[[str], Any]] = {
    "i": int,
    "u": int,
    "b": lambda name: name == "True",
    "f": float,
    "U": str,
}


class FeatureClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of feature vectors that learns new classes at any time, without a list of classes beforehand.

    Rows of classes that it knows are added where the learner can take them (`nmc`, `simplecil`, `lda`, `slda`, `fsa-lda`,
    `ranpac`, `ranpac-raw`, `acil`, `garm`, `pool`, and most of the other closed forms); the others refuse them with a
    `UsageError`, before anything is learned.

    Arguments:
        method: name of the learner (`tosca methods`). options: of it, by name. settings: of training, by name.
        seed: of everything random.
        calibrate: hold a fifth of each class out of a second learner, for calibrated probabilities; learning takes twice
            as long. Without it, probabilities are the softmax of the scores.

    Attributes, once fitted:
        classes_: labels, sorted. model_: the `tosca_cache.model.classifier.Model`, which has scores and novelty, too.
        n_features_in_.
    """

    model_: Model
    classes_: NDArray[Any]
    n_features_in_: int

    def __init__(
        self,
        method: str = "pool",
        *,
        options: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: int = 1993,
        calibrate: bool = False,
    ) -> None:
        self.method = method
        self.options = options
        self.settings = settings
        self.seed = seed
        self.calibrate = calibrate

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learns features [n, d] with labels [n], and nothing else."""
        for name in ("model_", "classes_"):
            if hasattr(self, name):
                delattr(self, name)
        return self._learn(X, y, reset=True)

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> Self:
        """Learns more features [n, d] with labels [n]; labels may be new. `classes` is not needed, and not looked at."""
        return self._learn(X, y, reset=not hasattr(self, "model_"))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels, [n]."""
        rows = self._rows(X)
        found: NDArray[Any] = self.classes_[self.model_.scores(rows)[:, self._columns()].argmax(1)]
        return found

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities, [n, C], in the order of `classes_`."""
        rows = self._rows(X)
        return self.model_.probabilities(rows)[:, self._columns()]

    def save(self, path: str | Path) -> None:
        """Writes it as a model's folder, which `tosca predict --features` and `load` open; no pickle."""
        check_is_fitted(self)
        self.model_.save(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A classifier from the folder of a model; labels are numbers again if they were."""
        model = Model.open(path)
        card = model.card.learner
        made = cls(
            card.method,
            options=card.options or None,
            settings=card.settings or None,
            seed=card.seed,
            calibrate=model.held_out is not None,
        )
        try:
            labels = np.array([_OF_KIND[model.card.labels](name) for name in model.class_names])
        except (KeyError, ValueError) as error:
            raise ModelError(
                "labels are not what the model says they are", where=path, remedy="save it again"
            ) from error
        made.model_, made.classes_, made.n_features_in_ = model, np.sort(labels), model.card.dim
        return made

    def _learn(self, X: ArrayLike, y: ArrayLike, *, reset: bool) -> Self:
        rows, labels = validate_data(self, X, y, dtype=FLOAT, reset=reset)
        check_classification_targets(labels)
        known = getattr(self, "classes_", np.empty(0, labels.dtype))
        if len(known) and (known.dtype.kind == "U") != (labels.dtype.kind in "UO"):
            raise UsageError("some labels are texts and others numbers", where="y", remedy="give all of one kind")
        if not hasattr(self, "model_"):
            self.model_ = self._fresh(rows.shape[1], labels.dtype.kind)
        names = [str(label) for label in labels.tolist()]
        lesson = Lesson(np.array(rows[:, None], FLOAT), names, np.zeros((len(rows), DIGEST), np.uint8))
        self.model_.learn(lesson, again=True)
        self.classes_ = unique_labels(known, labels) if len(known) else unique_labels(labels)
        return self

    def _fresh(self, dim: int, kind: str) -> Model:
        model = Model.create(dim, method=self.method, options=self.options, settings=self.settings, seed=self.seed)
        if not self.calibrate:
            model.held_out = None
        model.card = model.card.model_copy(update={"labels": kind if kind in _OF_KIND else "U"})
        return model

    def _rows(self, X: ArrayLike) -> NDArray[np.float32]:
        check_is_fitted(self)
        return np.array(validate_data(self, X, dtype=FLOAT, reset=False))

    def _columns(self) -> list[int]:
        place = {name: number for number, name in enumerate(self.model_.class_names)}
        return [place[str(label)] for label in self.classes_.tolist()]
