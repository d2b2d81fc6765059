"""Two recursive ridge regressions of one random layer: the second learns what the first leaves (DS-AL, field.md A2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.recursive import RecursiveRidge


class DualStream:
    """Scores f_main(x P) W_main + C f_comp(x P) W_comp; float64.

    W_main is ridge regression onto the classes. After it has learned a task, W_comp learns from the same rows what is left
    of their targets, Y - f_main(x P) W_main, with zeros for all classes but those that are new.

    Arguments:
        main, comp: random features of the same P with their own activations. gamma, gamma_comp: ridges. ratio: C.
    """

    def __init__(
        self, main: RandomFeatures, comp: RandomFeatures, *, gamma: float, gamma_comp: float, ratio: float
    ) -> None:
        self.main, self.comp = RecursiveRidge(main, gamma=gamma), RecursiveRidge(comp, gamma=gamma_comp)
        self.ratio, self.classes = ratio, 0

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features [n, d], labels [n] below `classes`, the number of classes so far."""
        h = self.main.features.apply(x)
        y = F.one_hot(labels, classes).to(h)
        self.main.add(h, y)
        left = y - h @ self.main.weights()
        left[:, : self.classes] = 0
        self.comp.add(self.comp.features.apply(x), left)
        self.classes = classes

    def finalize(self) -> None:
        """Solves for both weights, if that has not been done since the last rows."""
        self.main.finalize()
        self.comp.finalize()

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        return self.main.scores(x) + self.ratio * self.comp.scores(x)

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """Bytes that both take at most; see `Learner.memory_needed`."""
        return self.main.memory_needed(rows, classes, dim) + self.comp.memory_needed(rows, classes, dim)

    def state(self) -> dict[str, Tensor]:
        """That of both, and the number of classes."""
        parts = (("main", self.main), ("comp", self.comp))
        state = {f"{part}.{name}": tensor for part, ridge in parts for name, tensor in ridge.state().items()}
        return state | {"classes": torch.tensor(self.classes)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes them over."""
        for part, ridge in (("main.", self.main), ("comp.", self.comp)):
            ridge.load_state({name.removeprefix(part): t for name, t in state.items() if name.startswith(part)})
        self.classes = int(state["classes"])
