"""Closed-form classifiers, calibrated on held-out train rows, and the modules: their probabilities multiplied."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tosca_cache.routing.base import ModuleOutputs, register_router
from tosca_cache.routing.combine import Combination, standardised
from tosca_cache.routing.examine import Examination


class Calibrated(Combination):
    """log P(c | x) = what classifiers say + log P(c | x, task of c), but for a constant.

    The second term is what the module of the task says among its own classes. A classifier of scores s(x) says
    log softmax_c(s / tau). How good each one is, and its tau, follow from train rows alone: before a task is learned, a
    fifth of each of its classes is held out; every classifier, fitted on all earlier tasks and the other four fifths, is
    asked about it; tau is the one under which these rows are likeliest over all tasks so far; where no class has a row to
    spare, scores are brought to one scale instead. Then the task is learned whole. The modules cannot be calibrated like
    that: they have seen all train rows.
    """

    stores = "sums over all rows (and views) of four classifiers, [d, d] and [C, d] twice, [M, M] and [M, C], [C, d]"
    cost = "3 d C + M (d + C)"
    uses = ("lda", "lda-views", "ridge-random", "mean")

    def __init__(self) -> None:
        super().__init__()
        self.examinations()

    def share(self, pool: dict[str, Any]) -> None:
        """Uses the judges of other routers, and has them examined."""
        super().share(pool)
        self.examinations()

    def combined(self, scores: list[Tensor], outputs: ModuleOutputs) -> Tensor:
        """The logarithm of the product, [n, C]."""
        logits = outputs.block_logits.double()
        within = [torch.log_softmax(logits[:, block.start : block.stop], 1) for block in outputs.blocks]
        return torch.cat(within, 1) + self._said(scores, len(outputs.blocks))

    def alone(self, outputs: ModuleOutputs) -> Tensor:
        """The likeliest class by the classifiers in use, without the modules, [n]."""
        scores = [judge.scores(outputs) for judge in self.judges.values()]
        return self._said(scores, len(outputs.blocks)).argmax(1)

    def _said(self, scores: list[Tensor], tasks: int) -> Tensor:
        """The sum of what the classifiers in use say, [n, C]."""
        examined, asked = self.examinations(), self.asked(tasks)
        each = []
        for name in asked:
            tau, own = examined[name].temperature(tasks), scores[self.uses.index(name)]
            each.append(standardised(own) if tau is None else own / tau)
        return torch.stack([torch.log_softmax(judge, 1) for judge in each]).sum(0)

    @abstractmethod
    def asked(self, tasks: int) -> Sequence[str]:
        """The classifiers in use after some tasks."""

    def state(self) -> dict[str, Tensor]:
        """Each classifier's, and what its held-out rows said."""
        said = {name: torch.cat([e.right.unsqueeze(1), e.surprise], 1) for name, e in self.examinations().items()}
        return super().state() | {f"examined {name}": numbers for name, numbers in said.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Each classifier's, and what its held-out rows said."""
        super().load_state(state)
        for name, examination in self.examinations().items():
            numbers = state[f"examined {name}"]  # [T, 1 + K]
            examination.right, examination.surprise = numbers[:, 0], numbers[:, 1:]

    def examinations(self) -> dict[str, Examination]:
        """Of each judge, begun if it was not."""
        found = {}
        for name, judge in self.judges.items():
            judge.examination = judge.examination or Examination()
            found[name] = judge.examination
        return found


@register_router
class Product(Calibrated):
    """The one classifier that was right most often about held-out train rows (if equal, the likelier), and the modules."""

    name = "product"
    source = "product of experts (Hinton, Neural Computation 2002); temperature scaling (Guo et al., ICML 2017)"

    def asked(self, tasks: int) -> Sequence[str]:
        """The best one so far."""
        examined = self.examinations()
        return [max(examined, key=lambda name: examined[name].merit(tasks))]


@register_router
class Pool(Calibrated):
    """LDA with and without views, ridge regression on random features, class means, and the modules."""

    name = "pool"
    source = (
        "logarithmic opinion pool (Genest and Zidek, Statistical Science 1986); temperature scaling (Guo et al., 2017)"
    )

    def asked(self, tasks: int) -> Sequence[str]:
        """All but those that held-out rows show to be worse than the best: by more than a standard error of its count."""
        right = {name: examination.merit(tasks)[0] for name, examination in self.examinations().items()}
        least = max(right.values()) - max(right.values()) ** 0.5
        return [name for name in self.uses if right[name] >= least]
