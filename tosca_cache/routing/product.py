"""A closed-form classifier, chosen and calibrated on held-out train rows, and the modules, multiplied."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tosca_cache.routing.base import Evidence, register_router
from tosca_cache.routing.combine import Combination
from tosca_cache.routing.examine import Examination


@register_router
class Product(Combination):
    """log P(c | x) = log softmax_c(s(x) / tau) + log P(c | x, task of c), but for a constant.

    s are the scores of one closed-form classifier and P(c | x, task of c) is what the module of the task says among its own
    classes. Which classifier, and tau, follows from train rows alone: before a task is learned, a fifth of each of its
    classes is held out; every classifier, fitted on all earlier tasks and the other four fifths, is asked about it. The
    one right most often over all tasks so far is taken (if equal, the likelier), with the tau under which these rows are
    likeliest. Then the task is learned whole. The modules cannot be calibrated like that: they have seen all train rows.
    """

    name = "product"
    source = "product of experts (Hinton, Neural Computation 2002); temperature scaling (Guo et al., ICML 2017)"
    stores = "sums over all rows (and views) of three classifiers, [d, d] and [C, d] twice, [M, M] and [M, C]"
    cost = "d C + M (d + C)"
    uses = ("lda", "lda-views", "ridge-random")

    def __init__(self) -> None:
        super().__init__()
        self._examine()

    def share(self, pool: dict[str, Any]) -> None:
        """Uses the judges of other routers, and has them examined."""
        super().share(pool)
        self._examine()

    def chosen(self, tasks: int) -> tuple[str, float]:
        """The classifier in use after some tasks, and its tau."""
        examined = self._examine()
        name = max(examined, key=lambda name: examined[name].merit(tasks))
        return name, examined[name].temperature(tasks)

    def combined(self, scores: list[Tensor], evidence: Evidence) -> Tensor:
        """The logarithm of the product, [n, C]."""
        name, tau = self.chosen(len(evidence.blocks))
        logits = evidence.block_logits.double()
        within = [torch.log_softmax(logits[:, block.start : block.stop], 1) for block in evidence.blocks]
        return torch.log_softmax(scores[self.uses.index(name)] / tau, 1) + torch.cat(within, 1)

    def state(self) -> dict[str, Tensor]:
        """Each classifier's, and what its held-out rows said."""
        said = {name: torch.cat([e.right.unsqueeze(1), e.surprise], 1) for name, e in self._examine().items()}
        return super().state() | {f"examined {name}": numbers for name, numbers in said.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Each classifier's, and what its held-out rows said."""
        super().load_state(state)
        for name, examination in self._examine().items():
            numbers = state[f"examined {name}"]  # [T, 1 + K]
            examination.right, examination.surprise = numbers[:, 0], numbers[:, 1:]

    def _examine(self) -> dict[str, Examination]:
        """The examination of each judge, begun if it was not."""
        found = {}
        for name, judge in self.judges.items():
            judge.examination = judge.examination or Examination()
            found[name] = judge.examination
        return found
