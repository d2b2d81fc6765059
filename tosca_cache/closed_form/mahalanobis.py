"""Mahalanobis distances with a shrunk correlation matrix of each class, or one for all (FeCAM, methods.md 6).

Of a covariance S are made S_s = S + a1 m1 I + a2 m2 (11^T - I), with m1 the mean of its diagonal and m2 that of its
off-diagonal elements other than zero, and the correlations C_ij = S_s,ij / (S_s,ii S_s,jj)^1/2. The distance of x to a
class of mean mu is (x - mu)^T C^+ (x - mu), C^+ the inverse or, where there is none, the pseudo-inverse. A covariance of
zero (a single row, or equal rows) has C = I: its distance is the squared Euclidean one.

Shrinkage may be applied several times, as the official code does; a diagonal covariance is compared as it is instead of as
correlations, which would leave nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Classifier, Solved

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

    def distances(self, x: Tensor, points: Tensor) -> Tensor:
        """(x - p)^T C^+ (x - p) of rows [n, d] and points [k, d], [n, k]."""
        along, centres = x @ self.factors.T, points @ self.factors.T
        squares = x.square() @ self.plain + along.square() @ self.signs
        mixed = (x * self.plain) @ points.T + (along * self.signs) @ centres.T
        return squares.unsqueeze(1) - 2 * mixed + (points.square() @ self.plain + centres.square() @ self.signs)


@dataclass(frozen=True)
class Shrinkage:
    """S_s of S, `times` times over: a1 and a2 weigh the means of the diagonal and of the other elements."""

    a1: float
    a2: float
    times: int = 1

    def added(self, mean: float, off_mean: float, share: float) -> tuple[float, float]:
        """What is added to the diagonal, and to every other element.

        Arguments:
            mean: of the diagonal. off_mean: of the other elements that are not zero, which are a share of all.
        """
        on = off = 0.0
        for _ in range(self.times):
            on, off = on + self.a1 * mean, off + self.a2 * off_mean
            mean *= 1 + self.a1
            if self.a2:  # after the first time none of them is zero
                off_mean, share = off_mean * (share + self.a2), 1.0
        return on, off


def precision_of_rows(root: Tensor, shrinkage: Shrinkage, *, size: float) -> Precision:
    """C^+ of a covariance S = A^T A of root A [k, d]; size: mean square of the features, to tell a covariance of zero by.

    Where S_s is A^T A + even 11^T + beta I with beta > 0 and even >= 0, Woodbury's identity gives C^+ from A A^T [k, k]; p
    is then positive and all signs are -1. Otherwise p is 0.
    """
    variances = root.square().sum(0)
    m1 = float(variances.mean())
    on, even = shrinkage.added(m1, *(off_diagonal_mean(root.T @ root) if shrinkage.a2 else (0.0, 1.0)))
    if m1 > NOTHING * size and on - even > FIRM * m1 and even >= 0:
        return _low_rank(root, variances + on, on - even, even)
    return shrunk_precision(root.T @ root, shrinkage, size=size)


def shrunk_precision(covariance: Tensor, shrinkage: Shrinkage, *, size: float) -> Precision:
    """C^+ of a covariance S [d, d]; size: mean square of the features, to tell a covariance of zero by."""
    m1 = float(covariance.diagonal().mean())
    if not m1 > NOTHING * size:
        return Precision.identity(covariance[0])
    on, off = shrinkage.added(m1, *off_diagonal_mean(covariance))
    shrunk = covariance + off
    shrunk.diagonal().add_(on - off)
    return dense_precision(shrunk)


def diagonal_precision(root: Tensor, shrinkage: Shrinkage, *, size: float) -> Precision:
    """(V / |V|)^+ with V the diagonal of S_s and |V| its norm, for S = A^T A of root A [k, d]; V = I if S is zero."""
    variances = root.square().sum(0)
    m1 = float(variances.mean())
    shrunk = variances + shrinkage.added(m1, 0.0, 1.0)[0] if m1 > NOTHING * size else torch.ones_like(variances)
    plain = torch.where(shrunk > 0, shrunk.norm() / shrunk, 0.0)
    return Precision(plain, root[:0], root.new_zeros(0))


def dense_precision(shrunk: Tensor, *, eps: float = torch.finfo(torch.float64).eps) -> Precision:
    """C^+ of S_s [d, d] by Cholesky or, if near singular, from eigenvalues; channels without variance are left out.

    eps: eigenvalues below d eps times the largest are taken for 0.
    """
    deviation = shrunk.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(deviation > 0, 1 / deviation, 0.0)
    correlation = inverse[:, None] * shrunk * inverse
    none = torch.zeros_like(deviation)
    factor, failed = torch.linalg.cholesky_ex(correlation)
    if not int(failed) and float(factor.diagonal().min()) ** 2 > FIRM:
        identity = torch.eye(len(factor)).to(factor)
        return Precision(none, torch.linalg.solve_triangular(factor, identity, upper=False), torch.ones_like(deviation))
    values, vectors = torch.linalg.eigh(correlation)
    kept = values.abs() > len(values) * eps * values.abs().max()
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


def off_diagonal_mean(covariance: Tensor) -> tuple[float, float]:
    """Mean of the off-diagonal elements other than zero, 0 if there are none; and their share of all."""
    off = covariance - covariance.diagonal().diag()
    count = int(off.count_nonzero())
    return float(off.sum()) / max(count, 1), count / max(off.numel() - len(off), 1)


class ClassCovariances(Classifier):
    """Minus the distance to every class, each with its own C; float64. Exact for any split that keeps classes whole.

    Kept of a class of n rows: mean and p [d], F [k, d] and s [k], k <= n where no a2 is negative and k <= d always.

    Arguments:
        shrinkage: of each covariance. diagonal: leave out all but the variances, see `diagonal_precision`.
    """

    learned: ClassVar[tuple[str, ...]] = ("means", "plain", "factors", "signs")

    def __init__(self, shrinkage: Shrinkage, *, diagonal: bool = False) -> None:
        self.shrinkage, self.diagonal = shrinkage, diagonal
        self.means = torch.empty(0, 0, dtype=torch.float64)  # [C, d]
        self.plain: list[Tensor] = []  # p of each class; F and s below
        self.factors: list[Tensor] = []
        self.signs: list[Tensor] = []

    def observe(self, x: Tensor, labels: Tensor, classes: int, *, means: Tensor | None = None) -> None:
        """Adds the new classes: features [n, d], labels [n]; classes: how many there are with these, C.

        means: from which distances to the new classes are taken, [K, d]; None: those of x.
        """
        x = x.double()
        found = []
        for c in range(len(self.means), classes):
            rows = x[labels == c]
            found.append(rows.mean(0))
            root = (rows - found[-1]) / max(len(rows) - 1, 1) ** 0.5
            precision = self.precision(root, size=float(rows.square().mean()))
            self.plain.append(precision.plain)
            self.factors.append(precision.factors)
            self.signs.append(precision.signs)
        new = torch.stack(found) if means is None else means
        self.means = torch.cat([self.means.reshape(-1, x.shape[1]).to(x), new])

    def precision(self, root: Tensor, *, size: float) -> Precision:
        """C^+ of a class, of the root [k, d] of its covariance."""
        make = diagonal_precision if self.diagonal else precision_of_rows
        return make(root, self.shrinkage, size=size)

    def scores(self, x: Tensor, start: int = 0) -> Tensor:
        """Minus the distances to the classes from `start` on, [n, C - start]."""
        means, plain = self.means[start:], torch.stack(self.plain[start:])  # [C, d]
        factors, signs = torch.cat(self.factors[start:]), torch.cat(self.signs[start:])  # [K, d] and [K]
        ranks = torch.tensor([len(each) for each in self.signs[start:]], device=x.device)
        owners = torch.arange(len(means), device=x.device).repeat_interleave(ranks)
        offsets = (factors * means[owners]).sum(1)
        at_once = max(1, ROWS_AT_ONCE // max(1, len(factors)))
        parts = []
        for part in x.double().split(at_once):
            distance = part.square() @ plain.T - 2 * part @ (plain * means).T + (plain * means.square()).sum(1)
            along = (part @ factors.T - offsets).square_().mul_(signs)
            parts.append(-distance.index_add_(1, owners, along))
        return torch.cat(parts)


class RowCorrelations(ClassCovariances):
    """Distances by the correlations between the rows of S + alpha I, as LAMDA-PILOT has it; their pseudo-inverse.

    S + alpha I is itself taken as d variables of d observations each, whose correlations have rank d - 1 at most.

    Arguments:
        alpha: added to the variances.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__(Shrinkage(0.0, 0.0))
        self.alpha = alpha

    def precision(self, root: Tensor, *, size: float) -> Precision:
        """C^+ of a class, of the root [k, d] of its covariance."""
        shrunk = root.T @ root
        shrunk.diagonal().add_(self.alpha)
        centred = shrunk - shrunk.mean(1, keepdim=True)
        return dense_precision(centred @ centred.T, eps=torch.finfo(torch.float32).eps)  # that of the official code


class CommonCovariance(Solved):
    """Minus the distance to every class with one C for all, from a running average of the tasks' covariances; float64.

    S becomes (C' S + K S_t) / (C' + K) with C' classes before, K in the task and S_t the covariance of all its rows about
    their mean.

    Arguments:
        shrinkage: of the average.
    """

    learned = ("means", "covariance")

    def __init__(self, shrinkage: Shrinkage) -> None:
        self.shrinkage = shrinkage
        self.means = torch.empty(0, 0, dtype=torch.float64)  # [C, d]
        self.covariance = torch.empty(0, 0, dtype=torch.float64)

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
        self._weights = None

    def solved(self) -> Precision:
        """C^+ of the average."""
        return shrunk_precision(self.covariance, self.shrinkage, size=float(self.means.square().mean()))

    def scores(self, x: Tensor) -> Tensor:
        """Minus the distances to all classes, [n, C]."""
        precision: Precision = self.weights()
        return -precision.distances(x.double(), self.means)
