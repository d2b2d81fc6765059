"""Held-out photos of a model: what they say about accuracy, probabilities, and photos of no known class.

A fifth of each class's photos is held out of a second learner, which is taught everything else in the same steps as the
first. So the model that answers has learned every photo, and its numbers still come from photos that were not learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.learners.base import Learner, learner_type
from tosca_cache.learners.options import check_options
from tosca_cache.model.card import LearnerCard
from tosca_cache.seeds import numpy_generator
from tosca_cache.tasks import Rows, Task

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
SHARE = 0.2
MOST = 10  # held-out photos of a class
FEW = 8  # classes asked for of each row, up to which it is searched so often instead of sorted
OCTAVE = 4  # temperatures
TEMPERATURES = tuple(2.0 ** (step / OCTAVE) for step in range(56, -57, -1))


@dataclass
class HeldOut:
    """The second learner, and the rows that it has not seen.

    features: clean ones, [h, d]. indices: class numbers of the learner, [h].
    """

    learner: Learner
    features: FloatArray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    indices: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    _scores: FloatArray | None = field(default=None, repr=False, compare=False)

    def add(self, features: FloatArray, indices: IntArray) -> None:
        """Adds rows that the second learner is not taught, after what it is taught of the step: [n, d] and [n]."""
        self._scores = None
        self.features = np.concatenate([self.features.reshape(-1, features.shape[1]), features])
        self.indices = np.concatenate([self.indices, indices])

    def forget(self, index: int) -> None:
        """Drops the rows of a class, and what the second learner has of it."""
        self.learner.forget_class(index)
        self._scores, kept = None, self.indices != index
        self.features, self.indices = self.features[kept], self.indices[kept]

    def all_scores(self) -> FloatArray:
        """Scores of the held-out rows by the second learner over its class numbers, [h, L]."""
        if self._scores is None:
            self._scores = np.asarray(self.learner.scores(self.features))
        return self._scores

    def state(self) -> dict[str, Tensor]:
        """Everything but the options of the second learner."""
        mine = {"features": torch.from_numpy(self.features), "indices": torch.from_numpy(self.indices)}
        return mine | {f"learner.{name}": tensor for name, tensor in self.learner.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` gave."""
        self.features, self.indices, self._scores = state["features"].numpy(), state["indices"].numpy(), None
        mine = "learner."
        self.learner.load_state({k.removeprefix(mine): t for k, t in state.items() if k.startswith(mine)})


def make_learner(card: LearnerCard, device: Any) -> Learner:
    """A fresh learner as a card says; raises `UsageError` if there is none of that name or with these options."""
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card.options.items()}
    check_options({card.method: options})
    settings = Settings(**{**asdict(Settings()), **card.settings})
    return learner_type(card.method)(seed=card.seed, settings=settings, device=device, **options)


def teach(learner: Learner, features: FloatArray, indices: IntArray, classes: range, number: int) -> None:
    """Shows a learner the rows [n, 1+V, d] of one step, class by class."""
    order = np.argsort(indices, kind="stable")
    learner.observe(Task(number, classes, Rows(features[order], indices[order], order)))
    learner.finalize()


def choose_held_out(names: Sequence[str], already: Mapping[str, int], seed: int, step: int) -> NDArray[np.bool_]:
    """Which of the rows of a step are held out, [n]: a fifth of each class, whatever other classes there are.

    A class of which no row is held out yet gives at least one of two or more rows.

    Arguments:
        names: class of each row, [n]. already: held-out rows of each class.
    """
    chosen, classes = np.zeros(len(names), bool), np.asarray(names, dtype=object)
    for name in dict.fromkeys(names):
        generator, has = numpy_generator(seed, "held-out", step, name), already.get(name, 0)
        rows = generator.permutation(np.flatnonzero(classes == name))
        wanted = max(round(SHARE * len(rows)), 0 if has else 1)
        chosen[rows[: max(min(wanted, len(rows) - 1, MOST - has), 0)]] = True
    return chosen


def best_temperature(scores: FloatArray, targets: Sequence[int] | IntArray) -> float:
    """The temperature under which `probabilities` make held-out answers likeliest: scores [h, C], targets [h] (columns).

    Of equally good ones the largest; 1 without rows, or where only one class can be answered.
    """
    rows, classes = scores.shape
    if not rows or classes < 2:
        return 1.0
    centred = np.asarray(scores - scores.max(1, keepdims=True), np.float64)
    right, left, surprise = np.asarray(targets)[:, None], doubt(rows), np.empty(len(TEMPERATURES))
    for first in range(OCTAVE):  # from one octave to the next exponentials are squared
        exponentials = np.exp(centred / TEMPERATURES[first])
        for place in range(first, len(TEMPERATURES), OCTAVE):
            found = np.take_along_axis(exponentials, right, 1)[:, 0] / exponentials.sum(1)
            surprise[place] = -np.log((1 - left) * found + left / classes).mean()
            np.square(exponentials, out=exponentials)
    return float(TEMPERATURES[int(np.argmin(np.round(surprise, 4)))])


def probabilities(scores: FloatArray, temperature: float, doubt: float) -> NDArray[np.float64]:
    """(1 - e) softmax(scores / tau) + e / C for scores [n, C] and a doubt e."""
    centred = (scores - scores.max(1, keepdims=True, initial=-np.inf)) / temperature
    exponentials = np.exp(centred, dtype=np.float64)
    softmax = exponentials / exponentials.sum(1, keepdims=True)
    return np.asarray((1 - doubt) * softmax + doubt / max(scores.shape[1], 1))


def doubt(rows: int) -> float:
    """What a model leaves open however sure it is, after h held-out rows: 1 / (h + 2), Laplace's rule of succession."""
    return 1 / (rows + 2)


def calibration_error(probability: FloatArray, correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error (Guo et al., ICML 2017) of the largest probabilities [n], in percent."""
    if not len(probability):
        return float("nan")
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [abs(float(correct[place == b].sum() - probability[place == b].sum())) for b in range(bins)]
    return 100 * sum(gaps) / len(probability)


def likeliest(values: NDArray[np.float64], k: int) -> IntArray:
    """Columns of the k largest of each row, [n, k]: largest first, of equal ones the first first."""
    if k > FEW:
        return np.argsort(-values, axis=1, kind="stable")[:, :k]
    left, found = values.copy(), np.empty((len(values), k), np.int64)
    for place in range(k):
        found[:, place] = left.argmax(1)
        np.put_along_axis(left, found[:, place, None], -np.inf, 1)
    return found
