"""The contract of a learner: it sees one task at a time and scores all classes seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Prediction:
    """labels: predicted learned labels, [n]; modules: the module that answered, [n], None without modules."""

    labels: IntArray
    modules: IntArray | None = None


class Watch:
    """Test rows that are asked about after every task.

    Rows are added as their classes appear; `predict` answers for all rows added so far. A method whose work on fixed rows
    can be kept between tasks has a watch of its own.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self.parts: list[FloatArray] = []

    def add(self, features: FloatArray) -> None:
        """Adds clean test features, [n, d]."""
        self.parts.append(features)

    def predict(self) -> Prediction:
        """Predictions for all rows added, in the order of adding."""
        return Prediction(self.method.scores(np.concatenate(self.parts)).argmax(1))


class Method(ABC):
    """A class-incremental learner on cached features.

    rehearsal: True if it keeps train rows of earlier tasks.
    """

    name: ClassVar[str]
    rehearsal: ClassVar[bool] = False

    @abstractmethod
    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Learns from the rows of one task; tasks come in order, each once."""

    @abstractmethod
    def scores(self, features: FloatArray) -> FloatArray:
        """Scores of clean features [n, d] over all classes seen, [n, C]; the largest is the prediction."""

    def watch(self) -> Watch:
        """Test rows to be asked about repeatedly."""
        return Watch(self)
