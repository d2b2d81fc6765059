"""Ridge regression onto one-hot classes, on raw or randomly expanded features (RanPAC, arXiv 2307.02251; methods.md 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from tosca_cache.closed_form.expansion import RandomFeatures

LAMBDAS = tuple(10.0**power for power in range(-8, 9))
LEAST = 1e-10
VALIDATION = 0.2  # of a task's rows, on which lambda is chosen


class Ridge:
    """W = (G + lambda I)^-1 Q with G = sum h h^T and Q = sum h y^T over all rows so far; float64.

    lambda is chosen anew at each task, from that task's rows alone: fitted on the first 80 % of them in random order,
    compared by the squared error on the rest, and then used with all sums.

    Arguments:
        expansion: size M of h = ReLU(x P) with P ~ N(0, 1); None: h = x.
        seed: of P and of the random order.
    """

    def __init__(self, expansion: int | None = None, *, seed: int = 1993) -> None:
        self.expansion, self.seed = expansion, seed
        self.features = RandomFeatures(expansion or 0, seed=seed)
        self.G = self.Q = torch.empty(0, 0, dtype=torch.float64)
        self.lam = 1.0
        self._weights: Tensor | None = None

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task.

        Arguments:
            x: features, [n, d]. labels: [n]. classes: how many there are with this task, C.
        """
        h = self._expanded(x)
        y = torch.zeros(len(h), classes, dtype=torch.float64, device=h.device)
        y[torch.arange(len(h)), labels] = 1
        if not len(self.G):
            self.G, self.Q = h.new_zeros(h.shape[1], h.shape[1]), h.new_zeros(h.shape[1], 0)
        grown = h.new_zeros(h.shape[1], classes)
        grown[:, : self.Q.shape[1]] = self.Q
        self.G, self.Q = self.G + h.T @ h, grown + h.T @ y
        order = torch.randperm(len(h), generator=torch.Generator().manual_seed(self.seed)).to(h.device)
        self.lam = best_lambda(h[order], y[order])
        self._weights = None

    def settle(self) -> None:
        """Solves for W, if that has not been done since the last task."""
        if self._weights is None:
            self._weights = solve(self.G, self.Q, self.lam)

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes, [n, C]."""
        self.settle()
        assert self._weights is not None
        return self._expanded(x) @ self._weights

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs."""
        return {"G": self.G, "Q": self.Q, "lambda": torch.tensor(self.lam, dtype=torch.float64)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Goes on where another one of the same expansion and seed was."""
        self.G, self.Q, self.lam = state["G"], state["Q"], float(state["lambda"])
        self._weights = None

    def _expanded(self, x: Tensor) -> Tensor:
        x = x.double()
        if self.expansion is None:
            return x
        return self.features.apply(x)


def solve(G: Tensor, Q: Tensor, lam: float) -> Tensor:
    """(G + lambda I)^-1 Q; where rounding leaves that singular (rank-deficient G, tiny lambda), the least-norm one, nearly.

    The least lambda that can be told from rounding, 1e-10 of the mean diagonal of G, stands for a smaller one there.
    """
    identity, least = torch.eye(len(G), dtype=G.dtype, device=G.device), LEAST * float(G.diagonal().mean())
    for tried in (lam, max(lam, least)):
        factor, failed = torch.linalg.cholesky_ex(G + tried * identity)
        if not int(failed):
            return torch.cholesky_solve(Q, factor)
    return torch.linalg.pinv(G + lam * identity, hermitian=True) @ Q


def best_lambda(h: Tensor, y: Tensor) -> float:
    """The lambda of `LAMBDAS` of least squared error on the last fifth of the rows, fitted on the others.

    In the dual form, one eigendecomposition serves all lambdas: prediction = K' (K + lambda I)^-1 y, K = h h^T.
    """
    held = max(1, round(VALIDATION * len(h)))
    fit, check = h[:-held], h[-held:]
    return best_lambda_of(fit @ fit.T, check @ fit.T, y[:-held], y[-held:])


def best_lambda_of(products: Tensor, cross: Tensor, y_fit: Tensor, y_check: Tensor) -> float:
    """The same from products of rows: K = h h^T of those fitted [n, n], and of those compared with those fitted [m, n]."""
    if not len(products):
        return 1.0
    values, vectors = torch.linalg.eigh(products)
    values = values.clamp_min(0)
    left, right = cross @ vectors, vectors.T @ y_fit
    errors = [float(((left / (values + lam)) @ right - y_check).square().mean()) for lam in LAMBDAS]
    return LAMBDAS[min(range(len(errors)), key=errors.__getitem__)]
