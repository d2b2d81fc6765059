"""AdaNPC (arXiv 2304.12566): the nearest stored train features vote; confident test rows may join them (methods.md 13.1).

It keeps train features: rehearsal in feature space. With beta of at most 1 the learner says that it is transductive, takes
the rows in a random order that follows from the seed (test rows mostly lie class by class), and forgets them after each
question. Confidence is the largest entry of the softmax over the votes, as in the official code. Votes add up to 1, so with
C classes it is at most e / (e + C - 1), and a beta above that changes nothing. The official memory also holds one random
row, of class 0, from its construction; that is left out, as are the 1e-5 that it adds to all votes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tosca_cache.closed_form.means import unit, votes
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import FloatArray, Learner, Positive, register_learner
from tosca_cache.seeds import numpy_generator
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone


@register_learner
class AdaNpc(Learner):
    """Stores unit-length train features [m, d] and their labels [m].

    Arguments:
        k, tau: how many neighbours vote, and how much the nearer ones count for more.
        beta: confidence from which a test row joins the memory; above 1: never.
        batch_size: test rows that are scored before the confident ones of them join.
    """

    name = "adanpc"
    source = "AdaNPC (arXiv 2304.12566), without updates by test rows unless told otherwise"
    agrees = (
        "equal to the official code (yfzhang114/AdaNPC, domainbed/knn.py and adapt_algorithms.py, commit 6fc8256) "
        "in votes and in which test rows join; without its training of the backbone, and with beta = 1.1 (none "
        "join) instead of 0.1, since rows that join make a prediction depend on the test rows before it."
    )
    rehearsal = True
    learned = ("memory", "labels", "classes")

    def __init__(
        self,
        *,
        k: Count = 100,
        tau: Positive = 0.1,
        beta: float = 1.1,
        batch_size: Count = 32,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.k, self.tau, self.beta, self.batch_size = k, tau, beta, batch_size
        self.transductive = beta <= 1
        self.memory = torch.empty(0, 0)  # [m, d]
        self.labels = torch.empty(0, dtype=torch.int64)
        self.classes = 0

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the task's clean features."""
        clean = unit(torch.from_numpy(task.train.features[:, 0]).float()).to(self.device)
        self.memory = torch.cat([self.memory, clean]) if self.classes else clean
        self.labels = torch.cat([self.labels.to(self.device), torch.from_numpy(task.train.labels).to(self.device)])
        self.classes = task.classes.stop

    def scores(self, features: FloatArray) -> FloatArray:
        """Shares of the votes, [n, C]."""
        x = unit(torch.from_numpy(features).float()).to(self.device)
        answer = self._online if self.transductive else self._votes
        scores: FloatArray = answer(x, self.memory, self.labels).cpu().numpy()
        return scores

    def _votes(self, x: Tensor, memory: Tensor, labels: Tensor) -> Tensor:
        return votes(x, memory, labels, self.classes, k=self.k, tau=self.tau)

    def _online(self, x: Tensor, memory: Tensor, labels: Tensor) -> Tensor:
        scores = x.new_zeros(len(x), self.classes)
        order = torch.from_numpy(numpy_generator(self.seed, "adanpc order").permutation(len(x))).to(x.device)
        for rows in order.split(self.batch_size):
            scores[rows] = self._votes(x[rows], memory, labels)
            sure = rows[torch.softmax(scores[rows], 1).amax(1) >= self.beta]
            memory = torch.cat([memory, x[sure]])
            labels = torch.cat([labels, scores[sure].argmax(1)])
        return scores
