"""Random features h = ReLU(x P): one fixed random layer that makes classes easier to separate by a linear map."""

from __future__ import annotations

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
        if self._projection is None:
            self._projection = self.projection(x.shape[1]).to(x.device)
        x = x.to(self.dtype)
        return self.activation(x @ self._projection[:-1] + self._projection[-1] if self.bias else x @ self._projection)

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

    def __init__(
        self, size: int, *, seed: int, inputs: int = 100, active: float = 0.01, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__(size, seed=seed, dtype=dtype)
        self.inputs, self.kept = inputs, max(1, round(active * size))

    def apply(self, x: Tensor) -> Tensor:
        """Codes [n, M] of features [n, d], on the device of `x`."""
        if self._projection is None:
            self._projection = self.projection(x.shape[1]).to(x.device)
        v = x.to(self.dtype) @ self._projection
        largest = v.topk(self.kept, 1)
        return v.zero_().scatter_(1, largest.indices, largest.values)

    def projection(self, dim: int) -> Tensor:
        """P for features of `dim` numbers, [dim, M], drawn anew on the CPU."""
        generator = torch.Generator().manual_seed(self.seed)
        places = torch.rand(self.size, dim, generator=generator).argsort(1)[:, : self.inputs]
        entries = torch.randn(places.shape, generator=generator, dtype=torch.float64)
        return torch.zeros(self.size, dim, dtype=self.dtype).scatter_(1, places, entries.to(self.dtype)).T.contiguous()
