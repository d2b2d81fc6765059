"""Random features of a Gaussian kernel, and its values at centres; both have a width, which a first task may set."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tosca_cache.closed_form.expansion import RandomFeatures

PAIRED = 1024  # rows whose distances make a median
WIDTHS = ("median", "scale")


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

    def __init__(
        self,
        size: int,
        *,
        seed: int,
        gamma: float | None = None,
        width: str = "median",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(size, seed=seed, dtype=dtype)
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
        if self._projection is None:
            self._projection = self.projection(x.shape[1]).to(x.device)
        z = (x.double() @ self._projection[:-1] + self._projection[-1]).cos_()
        return z.mul_((2 / self.size) ** 0.5).to(self.dtype)

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
