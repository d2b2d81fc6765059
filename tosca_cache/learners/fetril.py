"""FeTrIL (arXiv 2211.13131): a classifier of true current rows and of pseudo-rows of past classes (methods.md 3).

Kept between tasks are the class means; the classifier is trained from nothing at each task. Against the paper and its
code:
- The backbone is the store's, for the first task as well.
- `classifier="svc"` is the published one-vs-rest linear SVM on unit-length features: scikit-learn's LinearSVC with C = 1
  and tolerance 1e-4 in the primal, which takes minutes on large stores. The default `"hinge"` minimises the same
  objective for all classes side by side (`squared_hinge`), in float32 and to another tolerance. `"ridge"` has the squared
  error in place of the squared hinge, |W|^2 / 2 + C sum w |y - W(x, 1)|^2 with 0 and 1 as targets and each class at the
  same weight: one solution of linear equations.
- All features are brought to unit length; the official code leaves out its first batch of 512.
- Nearest is by cosine as in the paper; `metric="euclidean"` is as in the official code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tosca_cache.closed_form.means import NearestMean, unit
from tosca_cache.closed_form.pseudo import METRICS, balanced_ridge, rows_of_every_class
from tosca_cache.errors import UsageError
from tosca_cache.learners.base import FloatArray, Learner, register_learner
from tosca_cache.learners.squared_hinge import squared_hinge
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone

CLASSIFIERS = ("hinge", "ridge", "svc")
SVC_TOLERANCE = 1e-4


@register_learner
class FeTril(Learner):
    """Stores the class means [C, d]; the classifier [d + 1, C] only serves until the next task.

    Arguments:
        classifier: one of `CLASSIFIERS`.
        metric: by which a past class finds its nearest current one, of `METRICS`.
        C: weight of the errors against the size of the weights, for every classifier.
    """

    name = "fetril"
    source = "FeTrIL (arXiv 2211.13131)"

    def __init__(self, *, classifier: str = "hinge", metric: str = "cosine", C: float = 1.0, **common: Any) -> None:
        super().__init__(**common)
        for name, value, known in (("classifier", classifier, CLASSIFIERS), ("metric", metric, METRICS)):
            if value not in known:
                raise UsageError(f"{name} is {value!r}", where=name, remedy=f"choose one of {', '.join(known)}")
        self.classifier, self.metric, self.C = classifier, metric, C
        self.prototypes = NearestMean()
        self.weights = torch.empty(0, 0, dtype=torch.float64)  # [d + 1, C], the last row is the intercept

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the means of the task's classes and trains the classifier of all classes."""
        clean = torch.from_numpy(task.train.features[:, 0]).double()
        labels = torch.from_numpy(task.train.labels)
        self.prototypes.observe(clean, labels, task.classes.stop)
        groups = rows_of_every_class(clean, labels, self.prototypes.means, task.classes, metric=self.metric)
        self.weights = self.fitted(unit(rows) for rows in groups)

    def fitted(self, groups: Iterable[Tensor]) -> Tensor:
        """The classifier of unit-length rows, one [n_c, d] for each class: weights [d + 1, C], float64."""
        if self.classifier == "hinge":
            return squared_hinge(groups, C=self.C, device=self.device).double()
        if self.classifier == "ridge":
            return balanced_ridge(groups, lam=1 / (2 * self.C))
        return _svc(groups, self.C)

    def scores(self, features: FloatArray) -> FloatArray:
        """Distances from the hyperplanes, or ridge predictions, [n, C]."""
        x = unit(torch.from_numpy(features).double())
        scores: FloatArray = (x @ self.weights[:-1] + self.weights[-1]).numpy()
        return scores

    def state(self) -> dict[str, Tensor]:
        """The class means and the classifier."""
        return self.prototypes.state() | {"weights": self.weights}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes both over."""
        self.prototypes.load_state({"means": state["means"]})
        self.weights = state["weights"]


def _svc(groups: Iterable[Tensor], C: float) -> Tensor:
    from sklearn.svm import LinearSVC

    rows = [group.numpy() for group in groups]
    if len(rows) == 1:  # nothing to tell apart
        return torch.zeros(rows[0].shape[1] + 1, 1, dtype=torch.float64)
    labels = np.repeat(np.arange(len(rows)), [len(group) for group in rows])
    svm = LinearSVC(C=C, tol=SVC_TOLERANCE, dual=False).fit(np.concatenate(rows), labels)
    weights = np.concatenate([svm.coef_, svm.intercept_[:, None]], 1)
    return torch.from_numpy(np.concatenate([-weights, weights]) if len(rows) == 2 else weights).T.contiguous()
