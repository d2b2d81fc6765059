"""Ridge regression onto one-hot classes, on raw features (RanPAC, arXiv 2307.02251; methods.md 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.closed_form.base import Solved
from tosca_cache.closed_form.gcv import Candidates
from tosca_cache.closed_form.gram import add_gram
from tosca_cache.closed_form.roots import cholesky, column_major

LAMBDAS = tuple(10.0**power for power in range(-8, 9))
LEAST = 1e-10
FITTED = 0.8  # of a task's rows; lambda is chosen by `split` on the others
FOLDS = 4
FOLD_LAMBDAS = (*(10.0 ** (-4 + step / 2) for step in range(15)), 1e-8)  # of `folds`, in the order in which ties fall
AT_ONCE = 1024  # rows or columns that are converted to float64 together
LARGE = 4096  # equations from which several lambdas share a factor
DEPTH, RESIDUAL = 13, 1e-6  # steps from each factor, and the share of B that a solution may leave


class Ridge(Solved):
    """W = (G + lambda I)^-1 Q with G = sum x x^T and Q = sum x y^T over all rows so far; float64.

    lambda is chosen anew at each task. `gcv`: by generalised cross-validation over all rows so far, from G and Q (`gcv`).
    `split`, as published: from the task's own rows alone, fitted on the first 80 % of them in random order, compared by the
    squared error on the rest, and then used with all sums; it fails where all rows are about as many as features. `folds`:
    by accuracy on folds of the task's rows, each fitted with all sums before and the other folds (`fold_lambda`).

    Arguments:
        seed: of the random order.
        selection: `gcv`, `split` or `folds`.
    """

    learned = ("G", "Q", "lam", "rows")

    def __init__(self, *, seed: int = 1993, selection: str = "gcv") -> None:
        self.seed, self.selection = seed, selection
        self.G = self.Q = torch.empty(0, 0, dtype=torch.float64)
        self.lam, self.rows = 1.0, 0

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task.

        Arguments:
            x: features, [n, d]. labels: [n]. classes: how many there are with this task, C.
        """
        h = x.double()
        if not len(self.G):
            self.G, self.Q = h.new_zeros(h.shape[1], h.shape[1]), h.new_zeros(h.shape[1], 0)
        grown = F.pad(self.Q, (0, classes - self.Q.shape[1]))
        if self.selection == "folds":
            self.lam = fold_lambda(self.G, grown, h, labels)
        self.G, self.Q = add_gram(self.G.clone(), h), grown.index_add(1, labels, h.T)  # states of before stay
        self.rows += len(h)
        if self.selection == "split":
            order = torch.randperm(len(h), generator=torch.Generator().manual_seed(self.seed)).to(h.device)
            self.lam, _ = best_lambda(h[order], labels[order])
        self._weights = None

    def solved(self) -> Tensor:
        """W, [d, C]."""
        if self.selection == "gcv":
            self.lam = Candidates(self.G, self.Q, self.rows).best()
        return solve(self.G, self.Q, self.lam)

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes, [n, C]."""
        return x.double() @ self.weights()


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


def fold_lambda(G: Tensor, Q: Tensor, h: Tensor, labels: Tensor) -> float:
    """The lambda of `FOLD_LAMBDAS` of the best mean accuracy over stratified folds of a task's rows (LayUP, field.md A2).

    A fold is scored by the sums G [M, M] and Q [M, C] of all rows before plus those of the task's other folds. Folds are
    those of scikit-learn's StratifiedKFold without shuffling; classes may have fewer rows than there are folds.

    Arguments:
        h: rows of the task, [n, M]. labels: their classes, [n].
    """
    folds, accuracies = stratified_folds(labels), []
    for fold in folds.unique():
        held, fit = folds == fold, folds != fold
        values, vectors = torch.linalg.eigh(G + h[fit].T @ h[fit])
        right, left = vectors.T @ Q.index_add(1, labels[fit], h[fit].T), h[held] @ vectors
        values = values.clamp_min(0).unsqueeze(1)
        answers = torch.stack([(left @ (right / (values + lam))).argmax(1) for lam in FOLD_LAMBDAS])
        accuracies.append((answers == labels[held]).double().mean(1))
    return FOLD_LAMBDAS[int(torch.stack(accuracies).mean(0).argmax())]


def stratified_folds(labels: Tensor, folds: int = FOLDS) -> Tensor:
    """The fold of every row, [n]: each class's rows in order, in shares that are as even as they can be for all."""
    ordered, found = labels.sort().values, torch.empty_like(labels)
    for c in labels.unique():
        shares = torch.stack([(ordered[fold::folds] == c).sum() for fold in range(folds)])
        found[labels == c] = torch.arange(folds, device=labels.device).repeat_interleave(shares)
    return found


def best_lambda(h: Tensor, labels: Tensor) -> tuple[float, Tensor | None]:
    """The lambda of `LAMBDAS` of least squared error on the last fifth of the rows [n, M], fitted on the others.

    Beside it H^T H of the fitted rows [M, M] in float64, if they are more than M: whoever sums all rows has them already.

    As RanPAC's official code splits them, the first floor(0.8 n) rows are fitted. Solutions and errors are computed in
    float64 (products of more rows than features in the rows' precision, see `add_gram`), there in float32: where several
    lambdas are as good, or a small one cannot be solved for in float32, the choice may differ. The order of the rows is
    the caller's (there that of a shuffled loader), so the split itself is another draw.

    Whichever system is smaller is solved, of n or of M equations: linear in the rows beyond M.
    """
    count, y = fitted_rows(len(h)), own_targets(labels)
    fit, check, y_fit, y_check = h[:count], h[count:], y[:count], y[count:]
    if not len(fit):
        return 1.0, None
    dual = len(fit) <= fit.shape[1]
    matrix, right, left = (_dual if dual else _primal)(fit, y_fit, check)
    shared = len(matrix) >= max(LARGE, len(LAMBDAS) * DEPTH * right.shape[1])
    solutions = solve_in_subspace(matrix, right) if shared else _solve_each(matrix, right)
    found = [y_check + math.inf if x is None else left @ x for x in solutions]
    errors = [float((scores - y_check).square().mean().nan_to_num(math.inf)) for scores in found]
    return LAMBDAS[min(range(len(errors)), key=errors.__getitem__)], None if dual else matrix


def own_targets(labels: Tensor) -> Tensor:
    """One-hot targets over the classes that have rows, in float64: any lambda gives the others no error."""
    return F.one_hot(labels.unique(return_inverse=True)[1]).double()


def fitted_rows(count: int) -> int:
    """How many of a task's rows, the first ones, `best_lambda` fits."""
    return int(FITTED * count)


def _solve_each(A: Tensor, B: Tensor) -> Iterator[Tensor | None]:
    """X of (A + lambda I) X = B for each of `LAMBDAS`; None where rounding leaves no factor."""
    work = column_major(len(A), len(A), A, A.dtype)
    for lam in LAMBDAS:
        factor = cholesky(work.copy_(A.T), lam)
        yield None if factor is None else _back(factor, B)


def solve_in_subspace(A: Tensor, B: Tensor) -> list[Tensor | None]:
    """X of (A + lambda I) X = B for each of `LAMBDAS`, from the factors of a few of them; None where there is none.

    All X are sought in the space that (A + s I)^-j B span, j up to `DEPTH`, for some s of `LAMBDAS` (rational Krylov
    subspaces: Ruhe, Linear Algebra and its Applications 58 (1984); Beckermann and Reichel, SIAM J. Numer. Anal. 47 (2009)).
    The first s is the one nearest to 1e-4 of A's mean eigenvalue, the next is the middle one of those whose residual is
    above `RESIDUAL` of B, until there are none. A step of the space takes 6 M^2 C operations, a factor M^3 / 3.

    Arguments:
        A: symmetric, [M, M], without negative eigenvalues. B: [M, C], with 17 `DEPTH` C at most M.
    """
    work, waiting = column_major(len(A), len(A), A, A.dtype), list(LAMBDAS)
    basis = image = B[:, :0]
    found: dict[float, Tensor] = {}
    first = math.log10(max(float(A.diagonal().mean()), LAMBDAS[0]) / 10_000)
    shift = min(waiting, key=lambda lam: abs(math.log10(lam) - first))
    while waiting:
        shift = shift if shift in waiting else waiting[len(waiting) // 2]
        factor = cholesky(work.copy_(A.T), shift)
        waiting.remove(shift)
        if factor is None:
            continue
        block = found[shift] = _back(factor, B)
        for step in range(DEPTH):
            block = _back(factor, block) if step else block
            for _ in range(2):  # once leaves what rounding has left of the others
                block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
            basis, image = torch.cat([basis, block], 1), torch.cat([image, A @ block], 1)
        values, vectors = torch.linalg.eigh((basis.T @ image + image.T @ basis) / 2)
        right = vectors.T @ (basis.T @ B)
        for lam in tuple(waiting):
            inside = vectors @ (right / (values + lam).unsqueeze(1))
            x = basis @ inside
            if float((B - image @ inside - lam * x).norm() / B.norm()) <= RESIDUAL:
                found[lam] = x
                waiting.remove(lam)
    return [found.get(lam) for lam in LAMBDAS]


def _back(factor: Tensor, right: Tensor) -> Tensor:
    """X of L L^T X = right for a lower factor L, which is not copied."""
    halfway = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.T, halfway, upper=True)


def _dual(fit: Tensor, y: Tensor, check: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """H H^T, Y and the products of other rows with H, in float64; rows are converted some columns at a time."""
    matrix = fit.new_zeros(len(fit), len(fit), dtype=torch.float64)
    left = fit.new_zeros(len(check), len(fit), dtype=torch.float64)
    for some, others in zip(fit.split(AT_ONCE, 1), check.split(AT_ONCE, 1), strict=True):
        wide = some.double()
        add_gram(matrix, wide.T)
        left.addmm_(others.double(), wide.T)
    return matrix, y, left


def _primal(fit: Tensor, y: Tensor, check: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """H^T H, H^T Y and other rows, in float64; rows of float32 are multiplied in float32, and added up in float64."""
    matrix = add_gram(fit.new_zeros(fit.shape[1], fit.shape[1], dtype=torch.float64), fit, AT_ONCE)
    right = matrix.new_zeros(len(matrix), y.shape[1])
    for some, targets in zip(fit.split(AT_ONCE), y.split(AT_ONCE), strict=True):
        right.addmm_(some.double().T, targets)
    return matrix, right, check.double()
