"""Ridge regression on many random features, without M x M matrices while rows are few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.base import Solved
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.gcv import Candidates
from tosca_cache.closed_form.gram import ROWS, add_gram
from tosca_cache.closed_form.ridge import best_lambda, fitted_rows, own_targets
from tosca_cache.closed_form.roots import GROUP, Dual, Grown, bytes_needed, padded, square_root

AGAIN = 2  # times the rows at which lambda was chosen from G and Q: it is chosen again
FEW = 1 / 8  # of M: rows since the factor was made up to which it is kept, and the solution corrected


class RandomRidge(Solved):
    """W = (G + lambda I)^-1 Q of `ridge.Ridge` (RanPAC, methods.md 5), for M in the ten thousands.

    While all rows so far are at most M, the sums are kept as square roots of the Gram matrices of groups of up to `GROUP`
    rows of one task (`roots`), r (M + C) numbers; from then on as G and Q themselves, M (M + C) numbers. No row is kept in
    either form; a group of a single row, which is its own square root, appears as it would in Q.

    Arguments:
        features: the random features.
        seed: of the random order in which a task's rows are split to choose lambda.
        lam: lambda; None: chosen by `selection`, in float64.
        selection: `split` as published: at each task, as `Ridge` does. `gcv`: at each task while square
            roots are kept, then at the first one and when rows have doubled since. `gcv-task`: at each task, by
            generalised cross-validation over that task's rows alone, among `lambdas`.
        dtype: of all sums and of the solution; None: that of the features.
    """

    learned: ClassVar[tuple[str, ...]] = ("lam", "rows", "chosen_at", "dual", "targets")

    def __init__(
        self,
        features: RandomFeatures,
        *,
        seed: int,
        lam: float | None = None,
        selection: str = "split",
        lambdas: Sequence[float] = (),
        dtype: torch.dtype | None = None,
    ) -> None:
        self.features, self.seed, self.fixed, self.selection = features, seed, lam, selection
        self.lambdas = lambdas
        self.dtype = dtype or features.dtype
        self.lam, self.rows = 1.0 if lam is None else lam, 0
        self.chosen_at = 0  # rows when lambda was last chosen by `gcv`, from what is kept now
        self.targets: list[Tensor] = []  # of each square root, [n, C at its time]
        self.sums: tuple[Tensor, Tensor] | None = None  # G and Q
        self.dual = Dual()
        self._grown: Grown | None = None

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features [n, d], labels [n] below `classes`, the number of classes so far."""
        self._learn(x, labels, classes, labels.new_zeros(0))

    def observe_leaving_out(self, x: Tensor, labels: Tensor, classes: int, held_out: Tensor) -> Tensor:
        """As `observe`; scores of some of the rows (positions [h]) by W as it is without them, [h, C].

        They follow from the solution with all rows (Cook and Weisberg, Residuals and Influence in Regression, 1982, 2.2):
        what is left of a row that is not fitted is what is left of it, divided by one minus its leverage.
        """
        marks = self._learn(x, labels, classes, held_out)
        y = F.one_hot(labels[held_out], classes).to(self.dtype)
        if not len(held_out):
            return y
        if self.sums is None:
            found = self.dual.coefficients(self.lam, torch.cat([padded(self.targets), marks], 1))
            self._weights = self.dual.combined(found[:, :classes])
            inverse = marks.T @ found
            return y - _solved(inverse[:, classes:], inverse[:, :classes])
        weights = self.weights()
        assert self._grown is not None
        h = self._expanded(x[held_out])
        free = torch.eye(len(h)).to(self._grown.factor) - self._grown.leverage(h)
        return y - _solved(free, (y - h @ weights).to(free)).to(y)

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        return self.features.times(x, self.weights().to(self.features.dtype)).to(self.dtype)

    def solved(self) -> Any:
        """W, [M, C]."""
        if self.sums is None:
            return self.dual.solve(self.lam, padded(self.targets))
        self._grown = Grown(self.sums[0], self.lam)
        return self._grown.solve(self.sums[1]).to(self.sums[1])

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """Bytes that it takes at most; see `Learner.memory_needed`."""
        size, n = self.features.size, sum(rows)
        chosen = 0 if self.fixed is not None else n if self.selection == "gcv" else max(rows)  # rows, in float64
        system = bytes_needed(n, size, classes, dim, itemsize=self.dtype.itemsize, most=1)
        narrow = self.features.dtype.itemsize if self.features.dtype != self.dtype else 0  # rows are there in both
        return system + 16 * min(chosen, size) ** 2 + (self.dtype.itemsize + narrow) * max(rows) * size

    def state(self) -> dict[str, Tensor]:
        """What is kept, and copies of the sums, which are added to in place."""
        return super().state() | ({} if self.sums is None else {"G": self.sums[0].clone(), "Q": self.sums[1].clone()})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another one with the same features and seed was."""
        super().load_state(state)
        self.sums = (state["G"].clone(), state["Q"].clone()) if "G" in state else None

    def changed(self) -> None:
        """Drops what was solved for."""
        self._weights = self._grown = None

    def _expanded(self, x: Tensor) -> Tensor:
        return self.features.apply(x).to(self.dtype)

    def _learn(self, x: Tensor, labels: Tensor, classes: int, held_out: Tensor) -> Tensor:
        """Adds rows; where square roots are kept, what they are of the unit vectors of some rows, [r, h]."""
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed)).to(x.device)
        narrow, labels = self.features.apply(x[order]), labels[order]
        self.rows, products = self.rows + len(x), None
        if self.sums is None and self.dual.count + len(x) > self.features.size:
            self._leave_dual(x)
        if len(x) > FEW * self.features.size:  # the factor will not be kept: memory for the choice of lambda
            self.changed()
        if self.fixed is None and self.selection == "split":
            if len(x) > self.features.size:  # making those of test rows again is little beside this
                self.features.release()
            self.lam, products = best_lambda(narrow.to(self.dtype), labels)
        if self.fixed is None and self.selection == "gcv-task":
            self.lam = _task_candidates(narrow, own_targets(labels)).best_of(self.lambdas)
        if self.sums is not None:
            self._correct(narrow, labels, classes)
            self._add(narrow, labels, classes, products)
            self._choose()
            return labels[:0]
        self._weights = None
        h = narrow.to(self.dtype)
        y = F.one_hot(labels, classes).to(h)
        marked = (order.unsqueeze(1) == held_out).to(h)
        marks = [h.new_zeros(self.dual.count, len(held_out))]
        for part in torch.arange(len(h), device=h.device).tensor_split(-(-len(h) // GROUP)):
            root, target = square_root(h[part], torch.cat([y[part], marked[part]], 1), _products(h[part]))
            self.dual.append(root)
            self.targets.append(target[:, :classes].clone())
            marks.append(target[:, classes:])
        self._choose()
        return torch.cat(marks)

    def _choose(self) -> None:
        """Chooses lambda by generalised cross-validation, if it is time to."""
        due = self.sums is None or self.rows >= AGAIN * self.chosen_at
        if self.fixed is not None or self.selection != "gcv" or not due:
            return
        if self.sums is None:
            found = Candidates(self.dual.products(), padded(self.targets).double(), self.rows, dual=True)
        else:
            found = Candidates(self.sums[0].double(), self.sums[1].double(), self.rows)
        before, self.lam = self.lam, found.best(self.lam if self.chosen_at else None)
        self.chosen_at = self.rows
        if before != self.lam:
            self._weights = self._grown = None

    def _leave_dual(self, x: Tensor) -> None:
        blocks, targets, size = self.dual.blocks, self.targets, self.features.size
        self.dual, self.targets, self.chosen_at = Dual(), [], 0
        G = torch.zeros(size, size, dtype=self.dtype, device=x.device)
        Q = G.new_zeros(size, targets[-1].shape[1] if targets else 0)
        for block, target in zip(blocks, targets, strict=True):
            add_gram(G, block)
            Q[:, : target.shape[1]].addmm_(block.T, target)
        self.sums = G, Q

    def _correct(self, h: Tensor, labels: Tensor, classes: int) -> None:
        """Corrects the solution by few rows; after many, or where lambda has changed, it is to be found anew."""
        grown, weights = self._grown, self._weights
        kept = grown is not None and grown.lam == self.lam and grown.rows + len(h) <= FEW * self.features.size
        if grown is None or weights is None or not kept:
            self._grown = self._weights = None
            return
        h, weights = h.to(weights), F.pad(weights, (0, classes - weights.shape[1]))
        residual = F.one_hot(labels, classes).to(weights) - h @ weights
        self._weights = weights + grown.add(h, residual).to(weights)

    def _add(self, h: Tensor, labels: Tensor, classes: int, products: Tensor | None) -> None:
        """Adds rows to the sums, those of a class in float64 first; products: h^T h of `fitted_rows` of them, if known."""
        assert self.sums is not None
        G, Q = self.sums
        Q = F.pad(Q, (0, classes - Q.shape[1]))
        present, place = labels.unique(return_inverse=True)
        added = torch.zeros(len(present), h.shape[1], dtype=torch.float64, device=h.device)
        for some, places in zip(h.split(ROWS), place.split(ROWS), strict=True):
            added.index_add_(0, places, some.double())
        Q[:, present] += added.T.to(Q)
        if products is not None:
            G, h = G.add_(products), h[fitted_rows(len(h)) :]
        self.sums = add_gram(G, h), Q


def _task_candidates(h: Tensor, y: Tensor) -> Candidates:
    """Of whichever system is smaller, that of the rows [n, M] or that of the features."""
    h = h.double()
    if len(h) <= h.shape[1]:
        return Candidates(h @ h.T, y, len(h), dual=True)
    return Candidates(h.T @ h, h.T @ y, len(h))


def _products(h: Tensor) -> Tensor:
    wide = h.double()
    return wide @ wide.T


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """X of matrix X = right for a matrix that is positive definite but for rounding."""
    found: Tensor = torch.linalg.lstsq(matrix, right).solution
    return found
