"""What learners with closed-form classifiers share: rows go in once, scores come out, and the state is the classifier's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tosca_cache.devices import one_thread
from tosca_cache.learners.base import FloatArray, Learner
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone


class Classifier(Protocol):
    """Sums over rows, and the scores that follow from them."""

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features [n, d], labels [n]; classes: how many there are with these, C."""

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes, [n, C]."""

    def state(self) -> dict[str, Tensor]:
        """What it has learned."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes that over."""


@runtime_checkable
class Lazy(Protocol):
    """A classifier that solves for its weights when they are first asked for."""

    def finalize(self) -> None:
        """Solves for them, if that has not been done since the last task."""


@runtime_checkable
class Large(Protocol):
    """A classifier that may take more memory than there is."""

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """Bytes; see `Learner.memory_needed`."""


@runtime_checkable
class Forgets(Protocol):
    """A classifier that keeps classes apart, so that one can be taken out."""

    def forget(self, index: int) -> None:
        """Drops what is known of a class."""


class ClosedForm(Learner):
    """A learner that is a classifier on the clean features, or on what `prepared` makes of them."""

    classifier: Classifier

    @one_thread()
    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the clean rows of a task; their labels may be of earlier classes if the classifier allows it."""
        self._learn(task)

    @one_thread()
    def finalize(self) -> None:
        """Solves, where the classifier has put it off."""
        self._settle()

    @one_thread()
    def scores(self, features: FloatArray) -> FloatArray:
        """Scores of all classes, [n, C]."""
        return self._score(features)

    def _settle(self) -> None:
        if isinstance(self.classifier, Lazy):
            self.classifier.finalize()

    def _learn(self, task: Task) -> None:
        labels = torch.from_numpy(task.train.labels).to(self.device)
        self.classifier.observe(self.tensor(task.train.features[:, 0]), labels, task.classes.stop)

    def _score(self, features: FloatArray) -> FloatArray:
        scores: FloatArray = self.classifier.scores(self.tensor(features)).cpu().numpy()
        return scores

    def forget_class(self, index: int) -> bool:
        """Takes a class out, where the classifier keeps classes apart."""
        if not isinstance(self.classifier, Forgets):
            return False
        self.classifier.forget(index)
        return True

    def tensor(self, features: FloatArray) -> Tensor:
        """Features [n, d] on the device, prepared."""
        return self.prepared(torch.from_numpy(features).to(self.device))

    def prepared(self, x: Tensor) -> Tensor:
        """What the classifier is given for features [n, d]; the default changes nothing."""
        return x

    def state(self) -> dict[str, Tensor]:
        """The classifier's."""
        return {name: tensor.cpu() for name, tensor in self.classifier.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The classifier's."""
        self.classifier.load_state({name: tensor.to(self.device) for name, tensor in state.items()})


class Expanded(ClosedForm):
    """One on thousands of random features, whose large products use all threads."""

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """What its classifier takes."""
        return self.classifier.memory_needed(rows, classes, dim) if isinstance(self.classifier, Large) else 0

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the clean rows of a task; their labels may be of earlier classes."""
        self._learn(task)

    def finalize(self) -> None:
        """Solves, where the classifier has put it off."""
        self._settle()

    def scores(self, features: FloatArray) -> FloatArray:
        """Scores of all classes, [n, C]."""
        return self._score(features)
