"""Ridge regression on many random features, in single precision and without M x M matrices while rows are few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.gcv import Candidates
from tosca_cache.closed_form.gram import add_gram
from tosca_cache.closed_form.ridge import best_lambda
from tosca_cache.closed_form.roots import GROUP, Dual, cholesky, column_major, padded, square_root

GROWTH = 1.5  # of the rows until `lambda_kept` chooses again


class RandomRidge:
    """W = (G + lambda I)^-1 Q of `ridge.Ridge` (RanPAC, methods.md 5), for M in the ten thousands.

    While all rows so far are at most M, the sums are kept as square roots of the Gram matrices of groups of up to `GROUP`
    rows of one task (`roots`), r (M + C) numbers; from then on as G and Q themselves, M (M + C) numbers. No row is kept in
    either form; a group of a single row, which is its own square root, appears as it would in Q.

    Arguments:
        features: the random features; their dtype is that of all sums and of the solution.
        seed: of the random order in which a task's rows are split to choose lambda.
        lam: lambda; None: chosen at each task as `Ridge` does, by `selection`, in float64.
        selection: `split` as published, or `gcv`.
    """

    def __init__(
        self, features: RandomFeatures, *, seed: int, lam: float | None = None, selection: str = "split"
    ) -> None:
        self.features, self.seed, self.fixed, self.selection = features, seed, lam, selection
        self.lam, self.rows = 1.0 if lam is None else lam, 0
        self.chosen_at = 0  # rows when lambda was last chosen by `gcv`
        self.targets: list[Tensor] = []  # of each square root, [n, C at its time]
        self.sums: tuple[Tensor, Tensor] | None = None  # G and Q
        self.dual = Dual()
        self._weights: Tensor | None = None

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task: features [n, d], labels [n] below `classes`, the number of classes so far."""
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed)).to(x.device)
        h = self.features.apply(x[order])
        y = F.one_hot(labels[order], classes).to(h)
        self._weights = None
        self.rows += len(h)
        if self.sums is None and self.dual.count + len(h) > self.features.size:
            self._leave_dual(h)
        if self.fixed is None and self.selection == "split":
            self.lam = best_lambda(h, y)
        if self.sums is not None:
            self._add(h, y)
            return
        for part in torch.arange(len(h), device=h.device).tensor_split(-(-len(h) // GROUP)):
            root, target = square_root(h[part], y[part], _products(h[part]))
            self.dual.append(root)
            self.targets.append(target)

    def finalize(self) -> None:
        """Solves for W, if that has not been done since the last rows."""
        self.weights()

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""
        return self.features.times(x, self.weights())

    def weights(self) -> Tensor:
        """W, [M, C]; solved when first asked for after a task."""
        if self._weights is None and self.fixed is None and self.selection == "gcv":
            self._select()
        if self._weights is None:
            self._weights = self.dual.solve(self.lam, padded(self.targets)) if self.sums is None else self._primal()
        return self._weights

    @contextmanager
    def lambda_kept(self) -> Iterator[None]:
        """For fits on a part of a task: lambda stays, once it has been chosen if rows have grown by half since then."""
        before = self.fixed
        if before is None and self.selection == "gcv" and self.rows >= GROWTH * self.chosen_at:
            self._select()
        self.fixed = self.lam
        yield
        self.fixed, self._weights = before, None

    def _select(self) -> None:
        """Chooses lambda by generalised cross-validation; takes the solution with it where that is of M rows."""
        before, self.chosen_at = self.lam if self.chosen_at else None, self.rows
        if self.sums is None:
            products, targets = self.dual.products(), padded(self.targets).double()
            self.lam, _ = Candidates(products, targets, self.rows, dual=True).best(before)
            return
        G, Q = self.sums
        self.lam, found = Candidates(G.double(), Q.double(), self.rows).best(before)
        self._weights = None if found is None else found.to(Q)

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs; the features follow from their seed."""
        state = {"lambda": torch.tensor(self.lam, dtype=torch.float64), "rows": torch.tensor(self.rows)}
        state["chosen_at"] = torch.tensor(self.chosen_at)
        if self.sums is not None:
            return state | {"G": self.sums[0].clone(), "Q": self.sums[1].clone()}  # added to in place
        for i, (root, target) in enumerate(zip(self.dual.blocks, self.targets, strict=True)):
            state |= {f"root.{i}": root, f"target.{i}": target}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another one with the same features and seed was."""
        self.lam, self.rows, self._weights = float(state["lambda"]), int(state["rows"]), None
        self.chosen_at = int(state["chosen_at"])
        self.sums = (state["G"].clone(), state["Q"].clone()) if "G" in state else None
        groups = range(sum(name.startswith("root.") for name in state))
        self.dual = Dual(state[f"root.{i}"] for i in groups)
        self.targets = [state[f"target.{i}"] for i in groups]

    def _leave_dual(self, h: Tensor) -> None:
        blocks, targets, size = self.dual.blocks, self.targets, self.features.size
        self.dual, self.targets = Dual(), []
        self.sums = h.new_zeros(size, size), h.new_zeros(size, 0)
        for block, target in zip(blocks, targets, strict=True):
            self._add(block, target)

    def _add(self, h: Tensor, y: Tensor) -> None:
        assert self.sums is not None
        G, Q = self.sums
        Q = F.pad(Q, (0, y.shape[1] - Q.shape[1]))
        self.sums = add_gram(G, h), Q.addmm_(h.T, y)

    def _primal(self) -> Tensor:
        """(G + lambda I)^-1 Q; in float64 where single precision is singular, then with lambda raised by tens."""
        assert self.sums is not None
        G, Q = self.sums
        lam, floor = self.lam, torch.finfo(torch.float64).eps * float(G.diagonal().mean())
        factor = _factor(G, lam, G.dtype) if G.dtype != torch.float64 else None
        while factor is None:
            factor = _factor(G, lam, torch.float64)
            lam = 10 * max(lam, floor)
        return torch.cholesky_solve(Q.to(factor), factor).to(Q)


def _products(h: Tensor) -> Tensor:
    wide = h.double()
    return wide @ wide.T


def _factor(G: Tensor, lam: float, dtype: torch.dtype) -> Tensor | None:
    whole = column_major(len(G), len(G), G, dtype)
    return cholesky(whole.copy_(G.T), lam)  # G is symmetric; its transpose is in the memory order of `whole`
