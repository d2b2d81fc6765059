"""A Cholesky factor that grows by rows, kept in panels of rows: what is known of it is never copied."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PANEL = 512  # rows, at most; a diagonal block that small is factored by LAPACK, all else is products of matrices


class GrowingFactor:
    """L of L L^T = K, a matrix that is symmetric and positive definite and grows by rows and columns at its end.

    Only the lower half is kept: panel i, of rows up to the r-th, is L's [n_i, r].
    """

    def __init__(self) -> None:
        self.panels: list[Tensor] = []

    def __len__(self) -> int:
        """Rows."""
        return self.panels[-1].shape[1] if self.panels else 0

    def append(self, rows: Tensor) -> bool:
        """Adds rows of K from the first column to the diagonal, [n, r + n], and overwrites them.

        False, and nothing is to be asked of it any more, if K is not positive definite in its precision.
        """
        first = len(self)
        for start in range(0, len(rows), PANEL):
            panel = rows[start : start + PANEL]
            stop = first + start + len(panel)
            if not self._append(panel[:, :stop]):
                return False
        return True

    def forward(self, right: Tensor, known: Tensor) -> Tensor:
        """L^-1 of a right-hand side [r, C]; known: its first rows, if any are known."""
        kept = max((panel.shape[1] for panel in self.panels if panel.shape[1] <= len(known)), default=0)
        found = torch.cat([known[:kept], right[kept:]])
        for panel in self.panels:
            n, stop = panel.shape
            if stop > kept:
                part = found[stop - n : stop].addmm_(panel[:, : stop - n], found[: stop - n], alpha=-1)
                part.copy_(torch.linalg.solve_triangular(panel[:, stop - n :], part, upper=False))
        return found

    def backward(self, halfway: Tensor) -> Tensor:
        """L^-T of a right-hand side [r, C]."""
        found = halfway.clone()
        for panel in reversed(self.panels):
            n, stop = panel.shape
            part = found[stop - n : stop]
            part.copy_(torch.linalg.solve_triangular(panel[:, stop - n :].mT, part, upper=True))
            found[: stop - n].addmm_(panel[:, : stop - n].mT, part, alpha=-1)
        return found

    def _append(self, rows: Tensor) -> bool:
        n, start = len(rows), len(self)
        for panel in self.panels:
            height, stop = panel.shape
            before = stop - height
            part = rows[:, before:stop].addmm_(rows[:, :before], panel[:, :before].mT, alpha=-1)
            part.copy_(torch.linalg.solve_triangular(panel[:, before:].mT, part, upper=True, left=False))
        corner = rows[:, start:].addmm_(rows[:, :start], rows[:, :start].mT, alpha=-1)
        factor, failed = torch.linalg.cholesky_ex(corner)
        if int(failed):
            return False
        corner.copy_(factor)
        if self.panels and len(self.panels[-1]) + n <= PANEL:  # of small tasks
            rows = torch.cat([F.pad(self.panels.pop(), (0, n)), rows])
        self.panels.append(rows)
        return True
