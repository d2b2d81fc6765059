"""What learners with closed-form classifiers share: rows go in once, scores come out, and the state is the classifier's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Classifier
from tosca_cache.closed_form.means import unit
from tosca_cache.devices import one_thread
from tosca_cache.learners.base import FloatArray, Learner
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone


class ClosedForm(Learner):
    """A learner that is a classifier on the clean features, or on what `prepared` makes of them.

    unit_length: whether features are brought to unit length first. all_threads: whether its products are so large that
    they are worth all threads.
    """

    classifier: Classifier
    learned: ClassVar[tuple[str, ...]] = ("classifier",)
    adds_rows = True
    unit_length: ClassVar[bool] = False
    all_threads: ClassVar[bool] = False

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the clean rows of a task; their labels may be of earlier classes if the classifier allows it."""
        with self._threads():
            labels = torch.from_numpy(task.train.labels).to(self.device)
            self.classifier.observe(self.tensor(task.train.features[:, 0]), labels, task.classes.stop)

    def finalize(self) -> None:
        """Solves, where the classifier has put it off."""
        with self._threads():
            self.classifier.finalize()

    def scores(self, features: FloatArray) -> FloatArray:
        """Scores of all classes, [n, C]."""
        with self._threads():
            scores: FloatArray = self.classifier.scores(self.tensor(features)).cpu().numpy()
        return scores

    def _threads(self) -> AbstractContextManager[None]:
        return nullcontext() if self.all_threads else one_thread()

    def forget_class(self, index: int) -> bool:
        """Takes a class out, where the classifier keeps classes apart."""
        return self.classifier.forget(index)

    def tensor(self, features: FloatArray) -> Tensor:
        """Features [n, d] on the device, prepared."""
        return self.prepared(torch.from_numpy(features).to(self.device))

    def prepared(self, x: Tensor) -> Tensor:
        """What the classifier is given for features [n, d]."""
        return unit(x.double()) if self.unit_length else x

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """What its classifier takes, of those that may take more than there is."""
        return self.classifier.memory_needed(rows, classes, dim)
