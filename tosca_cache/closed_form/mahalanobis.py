"""Mahalanobis distances with a shrunk correlation matrix of each class, or one for all (FeCAM, methods.md 6).

Of a covariance S are made S_s = S + a1 m1 I + a2 m2 (11^T - I), with m1 the mean of its diagonal and m2 that of its
off-diagonal elements other than zero, and the correlations C_ij = S_s,ij / (S_s,ii S_s,jj)^1/2. The distance of x to a
class of mean mu is (x - mu)^T C^+ (x - mu), C^+ the inverse or, where there is none, the pseudo-inverse. A covariance of
zero (a single row, or equal rows) has C = I: its distance is the squared Euclidean one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

NOTHING = 1e-20  # of the mean square: what rounding leaves of a covariance of zero
ROWS_AT_ONCE = 2**24  # elements of one product
FIRM = 1e-8  # of the variance: a ridge or a pivot that small is left to the pseudo-inverse


@dataclass(frozen=True)
class Precision:
    """C^+ = diag(p) + F^T diag(s) F.

    plain: p, [d]. factors: F, [k, d]. signs: s, [k], 1 or -1.
    """

    plain: Tensor
    factors: Tensor
    signs: Tensor

    @classmethod
    def identity(cls, like: Tensor) -> Precision:
        """C^+ = I for features like `like`, [d]."""
        return cls(torch.ones_like(like), like.new_zeros(0, len(like)), like.new_zeros(0))


def precision_of_rows(root: Tensor, a1: float, a2: float, *, size: float) -> Precision:
    """C^+ of a covariance S = A^T A of root A [k, d]; size: mean square of the features, to tell a covariance of zero by.

    Where S_s is A^T A + even 11^T + beta I with beta > 0 and even >= 0, Woodbury's identity gives C^+ from A A^T [k, k]; p
    is then positive and all signs are -1. Otherwise p is 0.
    """
    variances = root.square().sum(0)
    m1, m2 = float(variances.mean()), off_diagonal_mean(root.T @ root) if a2 else 0.0
    beta, even = a1 * m1 - a2 * m2, a2 * m2
    if m1 > NOTHING * size and beta > FIRM * m1 and even >= 0:
        return _low_rank(root, variances + a1 * m1, beta, even)
    return shrunk_precision(root.T @ root, a1, a2, size=size)


def shrunk_precision(covariance: Tensor, a1: float, a2: float, *, size: float) -> Precision:
    """C^+ of a covariance S [d, d]; size: mean square of the features, to tell a covariance of zero by."""
    m1, m2 = float(covariance.diagonal().mean()), off_diagonal_mean(covariance)
    if not m1 > NOTHING * size:
        return Precision.identity(covariance[0])
    shrunk = covariance + a2 * m2
    shrunk.diagonal().add_(a1 * m1 - a2 * m2)
    return dense_precision(shrunk)


def dense_precision(shrunk: Tensor) -> Precision:
    """C^+ of S_s [d, d] by Cholesky or, if near singular, from eigenvalues; channels without variance are left out."""
    deviation = shrunk.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(deviation > 0, 1 / deviation, 0.0)
    correlation = inverse[:, None] * shrunk * inverse
    none = torch.zeros_like(deviation)
    factor, failed = torch.linalg.cholesky_ex(correlation)
    if not int(failed) and float(factor.diagonal().min()) ** 2 > FIRM:
        identity = torch.eye(len(factor)).to(factor)
        return Precision(none, torch.linalg.solve_triangular(factor, identity, upper=False), torch.ones_like(deviation))
    values, vectors = torch.linalg.eigh(correlation)
    kept = values.abs() > len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    factors = vectors.T[kept] / values[kept].abs().sqrt().unsqueeze(1)
    return Precision(none, factors, values[kept].sign())


def _low_rank(root: Tensor, variances: Tensor, beta: float, even: float) -> Precision:
    """C^+ = D (A^T A + even 11^T + beta I)^-1 D with D = diag(variances)^1/2."""
    rows = root if not even else torch.cat([root, torch.full_like(root[:1], even**0.5)])
    wide = len(rows) <= rows.shape[1]
    values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values.max()
    values = values[kept]
    vectors = vectors.T[kept]
    axes = vectors @ rows if wide else vectors * values.sqrt().unsqueeze(1)  # singular directions, scaled
    factors = axes * variances.sqrt() / (beta * (beta + values)).sqrt().unsqueeze(1)
    return Precision(variances / beta, factors, -torch.ones_like(values))


def off_diagonal_mean(covariance: Tensor) -> float:
    """Mean of the off-diagonal elements other than zero, 0 if there are none."""
    off = covariance - covariance.diagonal().diag()
    return float(off.sum() / off.count_nonzero().clamp_min(1))


class ClassCovariances:
    """Minus the distance to every class, each with its own C; float64. Exact for any split that keeps classes whole.

    Kept of a class of n rows: mean and p [d], F [k, d] and s [k], k < n with the defaults and k <= d always.

    Arguments:
        a1, a2: shrinkage of the diagonal and of the rest.
    """

    def __init__(self, *, a1: float = 1.0, a2: float = 0.0) -> None:
        self.a1, self.a2 = a1, a2
        self.means = torch.empty(0, 0, dtype=torch.float64)  # [C, d]
        self.precisions: list[Precision] = []

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the new classes: features [n, d], labels [n]; classes: how many there are with these, C."""
        x = x.double()
        means = []
        for c in range(len(self.precisions), classes):
            rows = x[labels == c]
            mean = rows.mean(0)
            root = (rows - mean) / max(len(rows) - 1, 1) ** 0.5
            self.precisions.append(precision_of_rows(root, self.a1, self.a2, size=float(rows.square().mean())))
            means.append(mean)
        self.means = torch.cat([self.means.reshape(-1, x.shape[1]).to(x), torch.stack(means)])

    def scores(self, x: Tensor, start: int = 0) -> Tensor:
        """Minus the distances to the classes from `start` on, [n, C - start]."""
        means, precisions = self.means[start:], self.precisions[start:]
        plain = torch.stack([precision.plain for precision in precisions])  # [C, d]
        factors = torch.cat([precision.factors for precision in precisions])  # [K, d]
        owners = torch.arange(len(means), device=x.device).repeat_interleave(
            torch.tensor([len(precision.factors) for precision in precisions], device=x.device)
        )
        offsets = (factors * means[owners]).sum(1)
        signs = torch.cat([precision.signs for precision in precisions])
        at_once = max(1, ROWS_AT_ONCE // max(1, len(factors)))
        parts = []
        for part in x.double().split(at_once):
            distance = part.square() @ plain.T - 2 * part @ (plain * means).T + (plain * means.square()).sum(1)
            along = (part @ factors.T - offsets).square_().mul_(signs)
            parts.append(-distance.index_add_(1, owners, along))
        return torch.cat(parts)

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs."""
        precisions = self.precisions
        if not precisions:
            return {}
        return {
            "means": self.means,
            "plain": torch.stack([precision.plain for precision in precisions]),
            "factors": torch.cat([precision.factors for precision in precisions]),
            "signs": torch.cat([precision.signs for precision in precisions]),
            "ranks": torch.tensor([len(precision.signs) for precision in precisions]),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another one with the same options was."""
        if not state:
            return
        self.means = state["means"]
        ranks = state["ranks"].tolist()
        parts = zip(state["plain"], state["factors"].split(ranks), state["signs"].split(ranks), strict=True)
        self.precisions = [Precision(*part) for part in parts]


class CommonCovariance:
    """Minus the distance to every class with one C for all, from a running average of the tasks' covariances; float64.

    S becomes (C' S + K S_t) / (C' + K) with C' classes before, K in the task and S_t the covariance of all its rows about
    their mean.

    Arguments:
        a1, a2: shrinkage of the diagonal and of the rest, applied to the average.
    """

    def __init__(self, *, a1: float = 1.0, a2: float = 0.0) -> None:
        self.a1, self.a2 = a1, a2
        self.means = torch.empty(0, 0, dtype=torch.float64)  # [C, d]
        self.covariance = torch.empty(0, 0, dtype=torch.float64)
        self._precision: Precision | None = None

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the new classes: features [n, d], labels [n]; classes: how many there are with these, C."""
        x = x.double()
        before = len(self.means)
        centred = x - x.mean(0)
        new = centred.T @ centred / max(len(x) - 1, 1)
        kept = before / classes
        self.covariance = kept * self.covariance + (1 - kept) * new if before else new
        means = torch.stack([x[labels == c].mean(0) for c in range(before, classes)])
        self.means = torch.cat([self.means.reshape(-1, x.shape[1]).to(x), means])
        self._precision = None

    def finalize(self) -> None:
        """Inverts the covariance, if that has not been done since the last task."""
        if self._precision is None:
            size = float(self.means.square().mean())
            self._precision = shrunk_precision(self.covariance, self.a1, self.a2, size=size)

    def scores(self, x: Tensor) -> Tensor:
        """Minus the distances to all classes, [n, C]."""
        self.finalize()
        p = self._precision
        assert p is not None
        rows, means = x.double(), self.means
        along, centres = rows @ p.factors.T, means @ p.factors.T
        squares = rows.square() @ p.plain + along.square() @ p.signs
        mixed = (rows * p.plain) @ means.T + (along * p.signs) @ centres.T
        return 2 * mixed - squares.unsqueeze(1) - (means.square() @ p.plain + centres.square() @ p.signs)

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs."""
        return {"means": self.means, "covariance": self.covariance}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another one with the same options was."""
        self.means, self.covariance = state["means"], state["covariance"]
        self._precision = None
