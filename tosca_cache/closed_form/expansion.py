"""Random features: one fixed layer, h = ReLU(x P) or of a kernel, that makes classes easier to separate by a linear map."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.base import Stateful

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
    "gelu": F.gelu,
}
KEPT_BYTES = 2**28  # of random features of rows that are asked about again
ROWS_AT_ONCE = 2048
PAIRED = 1024  # rows whose distances make a median


class RandomFeatures(Stateful):
    """h = f(x P + b) with P [d, M] from a seed; P is drawn when first needed and is no part of any state.

    Arguments:
        size: M.
        seed: of P, which is drawn in float64 and then rounded.
        law: `gaussian`: P ~ N(0, 1) (RanPAC, methods.md 5); `uniform`: P ~ U(-1/sqrt d, 1/sqrt d) (ACIL, methods.md 4).
        dtype: of P and h.
        activation: f, by its name in `ACTIVATIONS`. bias: b is of the law of P, from the same seed; otherwise it is 0.
    """

    def __init__(
        self,
        size: int,
        *,
        seed: int,
        law: str = "gaussian",
        dtype: torch.dtype = torch.float64,
        activation: str = "relu",
        bias: bool = False,
    ) -> None:
        self.size, self.seed, self.law, self.dtype = size, seed, law, dtype
        self.activation, self.bias = ACTIVATIONS[activation], bias
        self._projection: Tensor | None = None
        self._asked: tuple[Tensor, list[Tensor]] | None = None  # rows, and their random features in blocks

    def fit(self, x: Tensor) -> None:
        """Takes from the rows of a first task, [n, d], what depends on them; here nothing does."""

    def apply(self, x: Tensor) -> Tensor:
        """Random features [n, M] of features [n, d], on the device of `x`."""
        x, P = x.to(self.dtype), self.drawn(x)
        return self.activation(x @ P[:-1] + P[-1] if self.bias else x @ P)

    def drawn(self, x: Tensor) -> Tensor:
        """P for features [n, d], on their device; drawn once."""
        if self._projection is None:
            self._projection = self.projection(x.shape[1]).to(x.device)
        return self._projection

    def times(self, x: Tensor, weights: Tensor) -> Tensor:
        """h W [n, C] for features x [n, d] and weights W [M, C].

        Test rows are asked about after every task, each time with more of them at the end: the random features of the
        first ones, up to `KEPT_BYTES`, are kept. Those of the others are made for a block of rows at a time.
        """
        rows, kept = self._asked or (x[:0], [])
        known = len(rows) if rows.dtype == x.dtype and torch.equal(rows, x[: len(rows)]) else 0
        kept = kept[:] if known else []
        parts, room = [h @ weights for h in kept], KEPT_BYTES // (self.size * self.dtype.itemsize) - known
        for block in x[known:].split(ROWS_AT_ONCE):
            h = self.apply(block)
            parts.append(h @ weights)
            if len(block) <= room:
                kept.append(h)
                known, room = known + len(block), room - len(block)
            else:
                room = 0
        if known > len(rows):
            self._asked = x[:known].clone(), kept
        return torch.cat(parts)

    def release(self) -> None:
        """Drops the random features of rows that were asked about."""
        self._asked = None

    def projection(self, dim: int) -> Tensor:
        """P for features of `dim` numbers, [dim, M], drawn anew on the CPU; b is one more row."""
        generator = torch.Generator().manual_seed(self.seed)
        rows = dim + self.bias
        if self.law == "gaussian":
            return torch.randn(rows, self.size, generator=generator, dtype=torch.float64).to(self.dtype)
        uniform = torch.rand(rows, self.size, generator=generator, dtype=torch.float64)
        return ((2 * uniform - 1) / dim**0.5).to(self.dtype)


class SparseCodes(RandomFeatures):
    """Winner-take-all codes of sparse random projections, as in the fly's olfactory circuit (Fly-CL, field.md A2).

    v = x P, each of the M columns of P with `inputs` entries of N(0, 1) at random places; of v the `active` largest
    are kept as they are, the others are 0.

    Arguments:
        inputs: entries of a column; all d where there are fewer. active: share of M that is kept, at least one.
    """

    def __init__(self, size: int, *, seed: int, inputs: int, active: float, dtype: torch.dtype) -> None:
        super().__init__(size, seed=seed, dtype=dtype)
        self.inputs, self.kept = inputs, max(1, round(active * size))

    def apply(self, x: Tensor) -> Tensor:
        """Codes [n, M] of features [n, d], on the device of `x`."""
        v = x.to(self.dtype) @ self.drawn(x)
        largest = v.topk(self.kept, 1)
        return v.zero_().scatter_(1, largest.indices, largest.values)

    def projection(self, dim: int) -> Tensor:
        """P for features of `dim` numbers, [dim, M], drawn anew on the CPU."""
        generator = torch.Generator().manual_seed(self.seed)
        places = torch.rand(self.size, dim, generator=generator).argsort(1)[:, : self.inputs]
        entries = torch.randn(places.shape, generator=generator, dtype=torch.float64)
        return torch.zeros(self.size, dim, dtype=self.dtype).scatter_(1, places, entries.to(self.dtype)).T.contiguous()


class FourierFeatures(RandomFeatures):
    """z = sqrt(2 / M) cos(x W + b), W ~ N(0, 2 gamma), b ~ U(0, 2 pi): z . z' is nearly exp(-gamma |x - x'|^2).

    Rahimi and Recht, NeurIPS 2007.

    Arguments:
        size: M.
        gamma: None: of the rows of the first task, by `width`.
        width: `median`: 1 / (2 m) with m the median squared distance of two rows; `scale`: 1 / (d v) with v the variance of
            all numbers (scikit-learn's). 1 for rows that are all the same.
    """

    learned = ("gamma",)

    def __init__(self, size: int, *, seed: int, gamma: float | None, width: str) -> None:
        super().__init__(size, seed=seed)
        self.width, self.gamma = width, None if gamma is None else torch.tensor(gamma, dtype=torch.float64)

    def fit(self, x: Tensor) -> None:
        """Sets gamma by the rows of a first task, [n, d], if it has not been set."""
        if self.gamma is None:
            x = x.double()
            spread = 2 * median_square(x) if self.width == "median" else x.shape[1] * float(x.var(correction=0))
            gamma = 1 / spread if spread > 0 and math.isfinite(1 / spread) else 1.0
            self.gamma = torch.tensor(gamma, dtype=torch.float64)

    def changed(self) -> None:
        """Draws the projection anew."""
        self._projection = self._asked = None

    def apply(self, x: Tensor) -> Tensor:
        """z [n, M] of features [n, d], on the device of `x`."""
        P = self.drawn(x)
        return (x.double() @ P[:-1] + P[-1]).cos_().mul_((2 / self.size) ** 0.5)

    def projection(self, dim: int) -> Tensor:
        """W and, as a last row, b, [dim + 1, M]; float64, drawn anew on the CPU."""
        assert self.gamma is not None, "gamma is given, or of a first task"
        generator = torch.Generator().manual_seed(self.seed)
        weights = torch.randn(dim, self.size, generator=generator, dtype=torch.float64) * (2 * float(self.gamma)) ** 0.5
        return torch.cat([weights, 2 * torch.pi * torch.rand(1, self.size, generator=generator, dtype=torch.float64)])


class KernelFeatures(RandomFeatures):
    """phi_j(x) = exp(-|x - m_j|^2 / (2 sigma^2)) for centres m_j among the rows of a first task (GKEAL, field.md A2).

    Arguments:
        size: centres, at most; a first task of fewer rows has as many as it has rows.
        seed: of which rows.
    """

    learned = ("centres",)

    def __init__(self, size: int, *, seed: int, sigma: float) -> None:
        super().__init__(size, seed=seed)
        self.most, self.sigma = size, sigma
        self.centres: Tensor | None = None  # [M, d]

    def fit(self, x: Tensor) -> None:
        """Chooses centres among the rows of a first task, [n, d], if there are none."""
        if self.centres is None:
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed))[: self.most]
            self.centres = x[order.to(x.device)].double()
            self.changed()

    def changed(self) -> None:
        """There are as many features as centres."""
        self.size, self._asked = self.most if self.centres is None else len(self.centres), None

    def apply(self, x: Tensor) -> Tensor:
        """phi [n, M] of features [n, d], on the device of `x`."""
        assert self.centres is not None, "centres are of a first task"
        distance = torch.cdist(x.double(), self.centres, compute_mode="use_mm_for_euclid_dist")
        return distance.div_(self.sigma * 2**0.5).square_().neg_().exp_()


def median_square(x: Tensor) -> float:
    """Median squared distance of two rows of x [n, d], of some that are spread evenly; 0 for one row."""
    some = x[:: -(-len(x) // PAIRED)]
    distances = torch.pdist(some)
    return float(distances.median()) ** 2 if len(distances) else 0.0
