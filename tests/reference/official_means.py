"""Learners of class means and ridge regressions, all rows at once from their equations; each names the official code."""

import numpy as np
import torch
from reference.closed_form_plain import class_means, one_hot, ridge_weights, unit
from reference.official import compared, joined

FEW, MANY = 20, 200  # random features: fewer and more than there are train rows


def simplecil(parts, asked, _):
    """sun-hailong/LAMDA-PILOT, models/simplecil.py and backbone/linears.py: cosines with means of features as they are."""
    x, labels = joined(parts)
    return unit(asked) @ unit(class_means(x, labels)).T


def nmc(parts, asked, _):
    """Pauljanson002/pretrained-cl, main_cifar100.py: the least distance from a unit vector to means of unit vectors."""
    x, labels = joined(parts)
    return -((unit(asked)[:, None] - class_means(unit(x), labels)) ** 2).sum(2)


def teen(alpha, tau):
    """wangkiw/TEEN, models/teen/Network.py: the first task's means as they are, later ones drawn towards them once."""

    def scores(parts, asked, _):
        first = parts[0][1].max() + 1
        means = class_means(*joined(parts))
        new, base = unit(means[first:]), unit(means[:first])
        likeness = np.exp(tau * new @ base.T)
        drawn = unit(likeness / likeness.sum(1, keepdims=True) @ base)
        return unit(asked) @ unit(np.concatenate([means[:first], (1 - alpha) * new + alpha * drawn])).T

    return scores


def projected(rows, classifier):
    """Random features of rows, as the learner has drawn them: the draw is its own, the rest is not."""
    return np.maximum(rows @ classifier.features.projection(rows.shape[1]).double().numpy(), 0)


def acil(gamma):
    """ZHUANGHP/Analytic-continual-learning, analytic/AnalyticLinear.py: RecursiveLinear is the joint ridge solution."""

    def scores(parts, asked, classifier):
        x, labels = joined(parts)
        return projected(asked, classifier) @ ridge_weights(projected(x, classifier), one_hot(labels), gamma)

    return scores


def garm(gamma):
    """The same file: GeneralizedARM, every class's Gram matrix and sum times C / n_c over the sum of all 1 / n_c."""

    def scores(parts, asked, classifier):
        (x, labels), counts = joined(parts), np.bincount(joined(parts)[1])
        h, share = projected(x, classifier), (1 / counts) * len(counts) / (1 / counts).sum()
        A = sum(share[c] * h[labels == c].T @ h[labels == c] for c in range(len(counts)))
        C = h.T @ one_hot(labels) * share
        return projected(asked, classifier) @ np.linalg.solve(A + gamma * np.eye(h.shape[1]), C)

    return scores


def ranpac(expand):
    """RanPAC/RanPAC, RanPAC.py: lambda by the last task's rows, of which the first four fifths, rounded down, are fitted.

    They come in an order as the learner draws it (there a loader shuffles).
    """

    def scores(parts, asked, classifier):
        (x, labels), size = joined(parts), len(parts[-1][0])
        h = expand(x, classifier)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(classifier.seed)).numpy()
        own, targets = h[-size:][order], one_hot(labels)[-size:][order]
        fitted, losses = int(0.8 * size), {}
        for power in range(-8, 9):
            weights = ridge_weights(own[:fitted], targets[:fitted], 10.0**power)
            losses[power] = ((own[fitted:] @ weights - targets[fitted:]) ** 2).mean()
        return expand(asked, classifier) @ ridge_weights(h, one_hot(labels), 10.0 ** min(losses, key=losses.get))

    return scores


RIDGES = [{"buffer": size} | gamma for gamma in ({}, {"gamma": 3.0}) for size in (FEW, MANY)]
COMPARED = {
    "simplecil": [compared("simplecil", simplecil)],
    "nmc": [compared("nmc", nmc)],
    "teen": [compared("teen", teen(0.5, 16.0)), compared("teen", teen(0.1, 16.0), alpha=0.1)],
    "acil": [compared("acil", acil(options.get("gamma", 0.1)), **options) for options in RIDGES],
    "garm": [compared("garm", garm(options.get("gamma", 0.1)), **options) for options in RIDGES],
    "ranpac": [compared("ranpac", ranpac(projected), expansion=M, precision="float64") for M in (FEW, MANY)],
    "ranpac-raw": [compared("ranpac-raw", ranpac(lambda rows, _: rows))],
}
