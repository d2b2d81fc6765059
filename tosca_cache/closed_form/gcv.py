"""The ridge parameter by generalised cross-validation, from sums over all rows: no row is kept, and none is held out.

Golub, Heath and Wahba, Technometrics 21 (1979): lambda minimises n RSS / (n - df)^2 with df = tr(A (A + lambda I)^-1). Both
follow from one Cholesky factor of A + lambda I, the trace and tr(B^T X) halfway to the solution X. The trace is by random
signs (Girard, Numerische Mathematik 56 (1989)), or exact, from the eigenvalues: for small systems, and for those of fewer
rows than equations, where n - df is the small difference of large numbers. Unlike a split of the last rows it sees all
rows, so that there is no interpolation peak where rows are about as many as features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from tosca_cache.closed_form.roots import cholesky, column_major

POWERS = range(-8, 5)  # of ten, times the mean square norm of a row
START = -2
EXACT = 256  # equations up to which the trace is exact in any case
PROBES = 64
SEED = 1993
LEAST_ERROR = 1e-10  # of a target's mean square: what is less is rounding
LEAST_FREE = 1e-6  # of the rows: with fewer degrees of freedom left, the error says nothing


class Candidates:
    """Errors of the solutions of one ridge system by lambda.

    Arguments:
        matrix: G = H^T H [M, M], or K = H H^T [n, n] with `dual`; symmetric, float64.
        right: Q = H^T Y [M, C], or Y [n, C] with `dual` (Z = U^T Y serves as well, with U^T H in the place of H).
        rows: n; each target is one-hot, so that sum y^2 = n.
    """

    def __init__(self, matrix: Tensor, right: Tensor, rows: int, *, dual: bool = False) -> None:
        self.matrix, self.right, self.rows, self.dual = matrix, right, rows, dual
        self.scale = float(matrix.diagonal().sum()) / max(rows, 1)
        self._found: dict[int, float] = {}
        exact = len(matrix) <= EXACT or (not dual and rows < len(matrix))
        self._values = torch.linalg.eigvalsh(matrix).clamp_min(0) if exact else None

    def best(self, near: float | None = None) -> float:
        """The lambda of least error, downhill in powers of ten.

        Arguments:
            near: a lambda to start at, such as that of fewer rows; None: `START`.
        """
        if not self.scale > 0:
            return 1.0
        power = START if near is None else round(math.log10(near / self.scale))
        power = min(max(power, POWERS[0]), POWERS[-1])
        while True:
            tried = [p for p in (power, power - 1, power + 1) if p in POWERS]
            step = min(tried, key=self._at)
            if step == power:
                return self.scale * 10.0**power
            power = step

    def best_of(self, lambdas: Sequence[float]) -> float:
        """The lambda of least error among some; the largest where none can be told from rounding."""
        errors = {lam: self._score(lam) for lam in lambdas}
        return max(lambdas) if min(errors.values()) == math.inf else min(errors, key=errors.__getitem__)

    def _at(self, power: int) -> float:
        if power not in self._found:
            self._found[power] = self._score(self.scale * 10.0**power)
        return self._found[power]

    def _score(self, lam: float) -> float:
        size, classes = self.right.shape
        factor = cholesky(column_major(size, size, self.matrix, self.matrix.dtype).copy_(self.matrix.T), lam)
        if factor is None:
            return math.inf
        probes = [] if self._values is not None else [_probes(size).to(factor)]
        halfway = torch.linalg.solve_triangular(factor, torch.cat([self.right, *probes], 1), upper=False)
        x = torch.linalg.solve_triangular(factor.T, halfway[:, :classes], upper=True)
        if self._values is not None:
            left = float((lam / (self._values + lam)).sum())
        else:
            left = lam * float(halfway[:, classes:].square().sum()) / PROBES
        if self.dual:
            error, free = lam**2 * float(x.square().sum()), left
        else:
            error = self.rows - float(halfway[:, :classes].square().sum()) - lam * float(x.square().sum())
            free = self.rows - size + left
        if not (error > LEAST_ERROR * self.rows and free > LEAST_FREE * self.rows):
            return math.inf
        return self.rows * error / free**2


@lru_cache(maxsize=4)
def _probes(size: int) -> Tensor:
    """Random signs, [size, PROBES]."""
    generator = torch.Generator().manual_seed(SEED)
    return 2.0 * torch.randint(0, 2, (size, PROBES), generator=generator, dtype=torch.float64) - 1
