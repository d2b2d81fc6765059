"""Ridge regressions, all rows at once from their normal equations; each names the official code that has them."""

import numpy as np
import torch
from reference.closed_form_plain import one_hot, ridge_weights
from reference.official import DIM, Comparison, Scores

FEW, MANY = 20, 200  # random features: fewer and more than there are train rows


def projected(case, name, options):
    """Random features of rows, as the learner has drawn them: the draw is its own, the rest is not."""
    drawn = case.learner(name, **options).classifier.features.projection(DIM).double().numpy()
    return lambda rows: np.maximum(rows @ drawn, 0)


def after_each_task(case, expand, solve):
    """Scores after each task of W = solve(h, labels, rows of each task), h [n, M] being all rows so far."""
    found = []
    for parts, asked in case.after_each_task():
        h, labels = expand(np.concatenate([x for x, _ in parts])), np.concatenate([y for _, y in parts])
        found.append(expand(asked) @ solve(h, labels, [len(x) for x, _ in parts]))
    return found


def acil(gamma):
    """ZHUANGHP/Analytic-continual-learning, analytic/AnalyticLinear.py: RecursiveLinear is the joint ridge solution."""
    return lambda h, labels, sizes: ridge_weights(h, one_hot(labels), gamma)


def garm(gamma):
    """The same file: GeneralizedARM, every class's Gram matrix and sum times C / n_c over the sum of all 1 / n_c."""

    def solve(h, labels, sizes):
        counts = np.bincount(labels)
        share = (1 / counts) * len(counts) / (1 / counts).sum()
        A = sum(share[c] * h[labels == c].T @ h[labels == c] for c in range(len(counts)))
        C = h.T @ one_hot(labels) * share
        return np.linalg.solve(A + gamma * np.eye(h.shape[1]), C)

    return solve


def ranpac(seed):
    """RanPAC/RanPAC, RanPAC.py: lambda by the last task's rows, of which the first four fifths, rounded down, are fitted.

    seed: of the order in which those rows come, here as the learner draws it (there a loader shuffles).
    """

    def solve(h, labels, sizes):
        order = torch.randperm(sizes[-1], generator=torch.Generator().manual_seed(seed)).numpy()
        own, targets = h[-sizes[-1] :][order], one_hot(labels)[-sizes[-1] :][order]
        fitted, losses = int(0.8 * len(own)), {}
        for power in range(-8, 9):
            weights = ridge_weights(own[:fitted], targets[:fitted], 10.0**power)
            losses[power] = ((own[fitted:] @ weights - targets[fitted:]) ** 2).mean()
        return ridge_weights(h, one_hot(labels), 10.0 ** min(losses, key=losses.get))

    return solve


def analytic(name, solve, gamma, size):
    options = {"buffer": size} | ({} if gamma == 0.1 else {"gamma": gamma})
    return Comparison(
        lambda case: after_each_task(case, projected(case, name, options), solve(gamma)),
        Scores(name, options),
        classes=True,
    )


def random_ridge(size):
    options = {"expansion": size, "precision": "float64"}

    def plain(case):
        return after_each_task(
            case, projected(case, "ranpac", options), ranpac(case.learner("ranpac", **options).classifier.seed)
        )

    return Comparison(plain, Scores("ranpac", options), classes=True, atol=1e-5)


def raw_ridge(case):
    return after_each_task(case, lambda rows: rows, ranpac(case.learner("ranpac-raw").classifier.seed))


COMPARED = {
    "acil": [analytic("acil", acil, gamma, size) for gamma in (0.1, 3.0) for size in (FEW, MANY)],
    "garm": [analytic("garm", garm, gamma, size) for gamma in (0.1, 3.0) for size in (FEW, MANY)],
    "ranpac": [random_ridge(size) for size in (FEW, MANY)],
    "ranpac-raw": [Comparison(raw_ridge, Scores("ranpac-raw"), classes=True)],
}
