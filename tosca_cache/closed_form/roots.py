"""Ridge systems that grow from task to task: square roots of Gram matrices while rows are few, then the sums.

The sums G = H^T H [M, M] and Q = H^T Y [M, C] over n < M rows are also S^T S and S^T Z with S = U^T H, Z = U^T Y, where the
columns of U are the eigenvectors of H H^T. S holds what G holds, in n M numbers instead of M^2: the singular directions of
H, scaled, but not H itself, because U is thrown away (a single row is its own root, as it is its own column of Q). And
(S^T S + lambda I)^-1 S^T Z = S^T (S S^T + lambda I)^-1 Z, a system of n equations instead of M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.base import Stateful
from tosca_cache.closed_form.factor import GrowingFactor

GROUP = 512  # rows that are mixed into one square root, at most
# Rows for each feature up to which the small system is the cheaper one: beyond M rows it grows slowly, and the [M, M] one
# has to be built first, by about 2 M^3 operations.
RATIO = 1.5
FACTORS = 3  # of as many lambdas, which are kept: a lambda that is chosen at every task often goes back and forth


def square_root(h: Tensor, y: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """S = U^T h [n, M] and Z = U^T y [n, C] of rows h, their targets y, and products h h^T = U diag U^T [n, n]."""
    mix = torch.linalg.eigh(products).eigenvectors.mT.to(h.dtype)
    return mix @ h, mix @ y.to(h.dtype)


def padded(targets: Sequence[Tensor]) -> Tensor:
    """Targets of several blocks over as many classes as the last, [r, C]."""
    classes = targets[-1].shape[1]
    return torch.cat([F.pad(target, (0, classes - target.shape[1])) for target in targets])


def cholesky(matrix: Tensor, lam: float) -> Tensor | None:
    """Lower factor of `matrix` + lambda I in the place of `matrix`, of which the lower half is read; None if singular."""
    matrix.diagonal().add_(lam)
    info = torch.empty((), dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(matrix, out=(matrix, info))
    return None if int(info) else matrix


def column_major(rows: int, columns: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Zeros in the memory order of LAPACK, which then works in place."""
    return torch.zeros(columns, rows, dtype=dtype, device=like.device).mT


def bytes_needed(rows: int, size: int, classes: int, dim: int, *, itemsize: int, most: float) -> int:
    """Memory of a system of M = size features after some rows: the features' matrix, roots or sums, products and factors.

    Arguments:
        dim: of what the features are made of. most: rows for each feature up to which square roots are kept.
    """
    kept = min(rows, int(most * size))
    return int(itemsize * (size * (kept + classes + dim) + 2.5 * kept**2))


class Grown:
    """(G + lambda I)^-1 of sums G = H^T H [M, M] to which rows are added, by Woodbury's identity from a Cholesky factor.

    Where G + lambda I is singular in its precision, float64 is used; where it is that in float64, lambda is raised by tens.
    """

    def __init__(self, G: Tensor, lam: float) -> None:
        self.lam, tried, floor = lam, lam, torch.finfo(torch.float64).eps * float(G.diagonal().mean())
        factor = _factored(G, lam, G.dtype) if G.dtype != torch.float64 else None
        while factor is None:
            factor = _factored(G, tried, torch.float64)
            tried = 10 * max(tried, floor)
        self.factor = factor
        self.whitened = factor.new_zeros(0, len(G))  # U: the inverse is less by U^T U than when it began

    @property
    def rows(self) -> int:
        """Rows added since it began."""
        return len(self.whitened)

    def solve(self, right: Tensor) -> Tensor:
        """X of (G + lambda I) X = right, [M, C]; in the precision of the factor."""
        right = right.to(self.factor)
        return torch.cholesky_solve(right, self.factor) - self.whitened.T @ (self.whitened @ right)

    def leverage(self, h: Tensor) -> Tensor:
        """h (G + lambda I)^-1 h^T of rows [n, M], [n, n]."""
        columns = h.T.to(self.factor)
        halfway, less = torch.linalg.solve_triangular(self.factor, columns, upper=False), self.whitened @ columns
        return halfway.T @ halfway - less.T @ less

    def add(self, h: Tensor, residual: Tensor) -> Tensor:
        """Adds rows h [n, M]; how much W changes, [M, C], for what W leaves of their targets, [n, C]."""
        h = h.to(self.factor)
        moved = self.solve(h.T).T
        inner = h @ moved.T
        inner.diagonal().add_(1)
        root = torch.linalg.cholesky(inner)
        new = torch.linalg.solve_triangular(root, moved, upper=False)
        self.whitened = torch.cat([self.whitened, new])
        return new.T @ torch.linalg.solve_triangular(root, residual.to(root), upper=False)


def _factored(G: Tensor, lam: float, dtype: torch.dtype) -> Tensor | None:
    whole = column_major(len(G), len(G), G, dtype)
    return cholesky(whole.copy_(G.T), lam)  # G is symmetric; its transpose is in the memory order of `whole`


@dataclass
class _System:
    """S S^T + lambda I, factored, and the last right-hand side, halfway to its solution: L^-1 of it.

    lam: as asked for. added: as it had to be. scale: square roots of the rows' weights.
    """

    lam: float
    added: float
    scale: Tensor
    factor: GrowingFactor
    right: Tensor
    halfway: Tensor

    def holds(self, scale: Tensor) -> bool:
        """Whether weights of older rows are still what they were."""
        return torch.equal(self.scale, scale[: len(self.scale)])

    def forward(self, right: Tensor) -> Tensor:
        """L^-1 of a right-hand side [r, C]; rows solved for before are kept if they are the same."""
        start, classes = self.right.shape
        same = torch.equal(right[:start, :classes], self.right) and not right[:start, classes:].any()
        known = F.pad(self.halfway, (0, right.shape[1] - classes)) if same else right[:0]
        self.right, self.halfway = right, self.factor.forward(right, known)
        return self.halfway


class Dual(Stateful):
    """Solves (S^T D S + lambda I) W = S^T D Z for rows S that come in blocks, D = diag(weights).

    The products S S^T are computed once for every pair of rows, in the precision of S. The Cholesky factors of the last
    few lambdas are extended by the rows added since as long as the weights of older rows stay. Where single
    precision is not enough to factor, products and factor are computed in float64 from then on; where that is not enough
    either, lambda is raised by powers of ten until it is.
    """

    learned = ("blocks",)

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []  # each [n, M]
        self.changed()

    def changed(self) -> None:
        """Drops products and factors."""
        self._products: list[Tensor] = []  # block i: its rows with all rows up to its own, [n_i, n_0 + ... + n_i]
        self._systems: list[_System] = []  # the one used last at the end
        self._double = False

    @property
    def count(self) -> int:
        """Rows so far."""
        return sum(len(block) for block in self.blocks)

    def append(self, rows: Tensor) -> None:
        """Adds rows, [n, M]."""
        self.blocks.append(rows)

    def solve(self, lam: float, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """W [M, C] for targets Z [r, C]; weights: [r], 1 if None."""
        return self.combined(self.coefficients(lam, targets, weights))

    def coefficients(self, lam: float, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """A [r, C] with W = S^T A."""
        self._multiply()
        scale = torch.ones_like(targets[:, 0]) if weights is None else weights.sqrt()
        system = self._system(lam, scale)
        scale = scale.to(self._products[0]).unsqueeze(1)
        coefficients = scale * system.factor.backward(system.forward(scale * targets.to(scale)))
        return coefficients.to(self.blocks[0].dtype)

    def combined(self, coefficients: Tensor) -> Tensor:
        """W [M, C] of coefficients [r, C]."""
        first = self.blocks[0]
        solution = first.new_zeros(coefficients.shape[1], first.shape[1])  # S^T from the right is slow in MKL
        for block, part in zip(self.blocks, coefficients.split([len(block) for block in self.blocks]), strict=True):
            solution.addmm_(part.T, block)
        return solution.T

    def products(self) -> Tensor:
        """S S^T, [r, r]; float64."""
        self._multiply()
        whole = torch.empty(self.count, self.count, dtype=torch.float64, device=self.blocks[0].device)
        for block in self._products:
            n, last = block.shape
            whole[last - n : last, :last] = block
            whole[: last - n, last - n : last] = block[:, : last - n].mT
        return whole

    def _multiply(self) -> None:
        for i in range(len(self._products), len(self.blocks)):
            block = self._cast(self.blocks[i])
            self._products.append(torch.cat([block @ self._cast(left).T for left in self.blocks[: i + 1]], 1))

    def _cast(self, block: Tensor) -> Tensor:
        return block.double() if self._double else block

    def _system(self, asked: float, scale: Tensor) -> _System:
        """The system of all rows, extended if it is known."""
        squares = torch.cat([block[:, -len(block) :].diagonal() for block in self._products])
        squares = squares * scale.to(squares).square()
        lost = asked < torch.finfo(squares.dtype).eps / 4 * float(squares.min())
        lam = 0.0 if lost else asked  # so that all that rounding takes away share a factor
        self._systems = [system for system in self._systems if system.holds(scale)]
        known = next((system for system in self._systems if system.lam == lam), None)
        if known is not None:
            self._systems.remove(known)
            if self._extend(known.factor, known.added, scale):
                return self._kept(replace(known, scale=scale))
        factor, added, floor = GrowingFactor(), lam, torch.finfo(torch.float64).eps * float(squares.double().mean())
        while not self._extend(factor, added, scale):
            if self._products[0].dtype != torch.float64:
                self._double, self._products, self._systems = True, [], []
                self._multiply()
                return self._system(asked, scale)
            factor, added = GrowingFactor(), 10 * max(added, floor)
        nothing = self._products[0].new_empty(0, 0)
        return self._kept(_System(lam, added, scale, factor, nothing, nothing))

    def _kept(self, system: _System) -> _System:
        self._systems = [*self._systems, system][-FACTORS:]
        return system

    def _extend(self, factor: GrowingFactor, lam: float, scale: Tensor) -> bool:
        """Adds the rows that it lacks; whether that could be done."""
        start, wide = len(factor), scale.to(self._products[0])
        for block in self._products:
            n, last = block.shape
            if last > start:
                rows = (block * wide[:last]).mul_(wide[last - n : last, None])
                rows[:, last - n :].diagonal().add_(lam)
                if not factor.append(rows):
                    return False
        return True
