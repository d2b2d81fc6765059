"""Newer closed-form learners from their papers' equations, in float64 numpy, with fewer and more random features than rows.

What is random is the learner's own draw. Rows come as `parts`: (x [n, d], labels [n]) of each task so far.
"""

import numpy as np
import torch
from reference.closed_form_plain import class_means, fecam_precision, mahalanobis, one_hot, ridge_weights, softmax, unit
from reference.official import DIM, compared, joined
from scipy.special import erf
from sklearn.covariance import oas
from sklearn.model_selection import StratifiedKFold

from tosca_cache.closed_form.ridge import FOLD_LAMBDAS
from tosca_cache.learners.ranpac import FLY_LAMBDAS

SIZES = (8, 90)  # random features, of 48 rows


def up_to_a_row(scores):
    """Scores without what all classes of a row share."""
    return scores - scores.mean(1, keepdims=True)


def up_to_a_factor(scores):
    """And at a norm of one."""
    return up_to_a_row(scores) / max(np.linalg.norm(up_to_a_row(scores)), 1e-300)


def drawn(features, dim=DIM):
    return features.projection(dim).double().numpy()


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def centred_rows(z, labels):
    means = class_means(z, labels)
    return means, z - means[labels]


# KLDA, RanDumb


def fourier(x, features):
    P = drawn(features, x.shape[1])
    return np.sqrt(2 / P.shape[1]) * np.cos(x @ P[:-1] + P[-1])


def klda(ridge):
    """(z - mu_c)^T (S + r I)^-1 (z - mu_c), S the scatter, not divided by n."""

    def scores(parts, asked, classifier):
        (x, labels), features = joined(parts), classifier.features
        means, centred = centred_rows(fourier(x, features), labels)
        precision = np.linalg.inv(centred.T @ centred + ridge * np.eye(features.size))
        return -mahalanobis(fourier(asked, features), means, precision) / 2

    return scores


def klda_e(ridge):
    """Log of the mean over the draws of the softmax of n times the scores."""

    def scores(parts, asked, classifier):
        rows = len(joined(parts)[0])
        return np.log(np.mean([softmax(rows * klda(ridge)(parts, asked, one)) for one in classifier.members], 0))

    return scores


def randumb(parts, asked, classifier):
    """With the covariance within classes, shrunk as scikit-learn's OAS does."""
    (x, labels), features = joined(parts), classifier.features
    means, centred = centred_rows(fourier(x, features), labels)
    covariance, _ = oas(centred, assume_centered=True)
    return -mahalanobis(fourier(asked, features), means, np.linalg.inv(covariance)) / 2


# Fly-CL


def winners(x, projection, count):
    """Of every row of x P its `count` largest entries, the others 0."""
    v = x @ projection
    codes = np.zeros_like(v)
    for code, row in zip(codes, v, strict=True):
        largest = np.argsort(row)[-count:]
        code[largest] = row[largest]
    return codes


def gcv(h, y, lambdas):
    """The lambda of least (|Y - Y'|^2 / n) / (1 - df / n)^2."""
    u, s, _ = np.linalg.svd(h, full_matrices=False)
    errors = []
    for lam in lambdas:
        shrunk = s**2 / (s**2 + lam)
        left = y - u @ (shrunk[:, None] * (u.T @ y))
        errors.append((left**2).sum() / len(h) / (1 - shrunk.sum() / len(h)) ** 2)
    return lambdas[int(np.argmin(errors))]


def fly_cl(parts, asked, classifier):
    (x, labels), P = joined(parts), drawn(classifier.features)
    count, (last, own) = round(0.25 * P.shape[1]), parts[-1]
    assert ((P != 0).sum(0) == 3).all()
    lam = gcv(winners(last, P, count), one_hot(own, labels.max() + 1), FLY_LAMBDAS)
    return winners(asked, P, count) @ ridge_weights(winners(x, P, count), one_hot(labels), lam)


# LoRanPAC


def loranpac(rank):
    """After every task the singular value decomposition of what was kept and the new rows, truncated; then the scores."""

    def scores(parts, asked, classifier):
        P, seen = drawn(classifier.features), 0
        kept = np.zeros((0, P.shape[1]))
        for x, _ in parts:
            for some in np.split(x, range(rank, len(x), rank)):
                seen += len(some)
                _, s, v = np.linalg.svd(np.concatenate([kept, np.maximum(some @ P, 0)]), full_matrices=False)
                count = min(max(1, round(0.75 * seen)), rank, len(s))
                kept = s[:count, None] * v[:count]
        x, labels = joined(parts)
        s = np.linalg.norm(kept, axis=1, keepdims=True)
        kept, s = kept[s[:, 0] > 1e-6 * s.max()], s[s[:, 0] > 1e-6 * s.max()]  # not what rounding alone fills
        weights = (kept / s).T @ (kept / s @ np.maximum(x @ P, 0).T @ one_hot(labels) / s**2)
        return np.maximum(asked @ P, 0) @ weights

    return scores


# AnaCP


def root(matrix, power):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**power) @ vectors.T


def spread_means(means, sigma, alpha):
    centre = means.mean(0)
    u, s, v = np.linalg.svd((means - centre) @ root(sigma, -0.5), full_matrices=False)
    s[: len(means) - 1] += alpha  # centred means have one direction less than there are classes
    return unit(u @ np.diag(s) @ v @ root(sigma, 0.5) + centre)


def anacp(parts, asked, classifier):
    x, labels = joined(parts)
    x, classes = unit(x), labels.max() + 1
    means, centred = centred_rows(x, labels)
    sigma = centred.T @ centred / max(len(x) - classes, 1) + 1e-4 * np.eye(DIM)
    targets, heads, thetas = spread_means(means, sigma, 0.7), [drawn(head.features) for head in classifier.heads], []
    for P in heads:
        z = gelu(x @ P)
        right = sum((labels == c).sum() * np.outer(z[labels == c].mean(0), targets[c]) for c in range(classes))
        thetas.append(np.linalg.solve(z.T @ z + 0.3 * np.eye(z.shape[1]), right))

    def adapted(x):
        each = [unit(gelu(x @ P) @ theta) for P, theta in zip(heads, thetas, strict=True)]
        return gelu(np.mean(each, 0) @ drawn(classifier.classifier_features()))

    samples = classifier.samples(torch.from_numpy(means), torch.from_numpy(sigma)).numpy()
    owners = np.repeat(np.arange(classes), len(samples) // classes)
    return adapted(unit(asked)) @ ridge_weights(adapted(samples), one_hot(owners), 0.3)


# DS-AL, F-OAL


def ds_al(parts, asked, classifier):
    P, seen, left, known = drawn(classifier.main.features), [], [], 0
    classes = joined(parts)[1].max() + 1
    for number, (x, labels) in enumerate(parts):
        seen_x, seen_labels = joined(parts[: number + 1])
        main = ridge_weights(np.maximum(seen_x @ P, 0), one_hot(seen_labels, classes), 0.2)
        residual = one_hot(labels, classes) - np.maximum(x @ P, 0) @ main
        residual[:, :known] = 0
        residual[:, labels.max() + 1 :] = 0
        seen.append(np.tanh(x @ P))
        left.append(residual)
        known = labels.max() + 1
    comp = ridge_weights(np.concatenate(seen), np.concatenate(left), 0.05)
    return np.maximum(asked @ P, 0) @ main + 0.8 * np.tanh(asked @ P) @ comp


def f_oal(parts, asked, classifier):
    (x, labels), P = joined(parts), drawn(classifier.features)
    assert np.abs(P).max() <= 1 / np.sqrt(DIM)
    h, z = (1 / (1 + np.exp(-(rows @ P[:-1] + P[-1]))) for rows in (x, asked))
    return z @ ridge_weights(h, one_hot(labels), 1.0)


# LayUP


def layup_weights(parts, folds=4):
    """W and lambda: that of the best mean accuracy over stratified folds of the last task's rows, with all sums before."""
    (x, labels), (last, own) = joined(parts), parts[-1]
    before = joined(parts[:-1]) if len(parts) > 1 else (x[:0], labels[:0])
    classes, accuracies = labels.max() + 1, np.zeros((folds, len(FOLD_LAMBDAS)))
    for fold, (fit, held) in enumerate(StratifiedKFold(folds).split(last, own)):
        rows, targets = np.concatenate([before[0], last[fit]]), np.concatenate([before[1], own[fit]])
        for i, lam in enumerate(FOLD_LAMBDAS):
            answers = (last[held] @ ridge_weights(rows, one_hot(targets, classes), lam)).argmax(1)
            accuracies[fold, i] = (answers == own[held]).mean()
    lam = FOLD_LAMBDAS[int(accuracies.mean(0).argmax())]
    return ridge_weights(x, one_hot(labels), lam), lam


# FeNeC


def fenec_distances(x, labels, rows, centres, a1, a2, nearest=1):
    """The least distances to a class's centres, by its shrunk correlations; the last one again where there are fewer."""
    found = []
    for c, points in enumerate(centres):
        each = np.sort(mahalanobis(rows, points, fecam_precision(x[labels == c], a1, a2)), 1)
        found.append(each[:, np.minimum(np.arange(nearest), len(points) - 1)])
    return np.stack(found, 1)


def fenec_logits(distances, a, b):
    """Of the distances to a class's nearest centres, [n, C, k]."""
    z = a + b * np.log(np.maximum(distances, 0) + 1e-10)
    return np.where(z > 0, z, 0.01 * z).sum(2)


def fenec_training(distances, labels, batches, a=0.0, b=-1.0, rate=3e-3):
    """a and b by Adam on the cross-entropy of these logits, its gradient written out."""
    numbers, mean, square = np.array([a, b]), np.zeros(2), np.zeros(2)
    for step, rows in enumerate(batches, 1):
        log = np.log(np.maximum(distances[rows], 0) + 1e-10)
        slope = np.where(numbers[0] + numbers[1] * log > 0, 1.0, 0.01)
        logits = fenec_logits(distances[rows], *numbers)
        error = (softmax(logits) - one_hot(labels[rows], logits.shape[1])) / len(rows)
        gradient = np.array([(error * slope.sum(2)).sum(), (error * (slope * log).sum(2)).sum()])
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        numbers = numbers - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return numbers


WIDE = {"gamma": 0.05, "ridge": 0.02}
FLY = {"inputs": 3, "active": 0.25, "precision": "float64"}
ANACP = {"heads": 2, "gamma": 0.3, "per_class": 7, "alpha": 0.7, "precision": "float64"}
DS_AL = {"gamma": 0.2, "gamma_comp": 0.05, "ratio": 0.8}
COMPARED = {
    "klda": [compared("klda", klda(0.02), same=up_to_a_row, expansion=size, **WIDE) for size in SIZES],
    "klda-e": [compared("klda-e", klda_e(9.0), same=softmax, expansion=20, draws=3, gamma=0.05, ridge=9.0)],
    "randumb": [compared("randumb", randumb, same=up_to_a_factor, expansion=size, gamma=0.05) for size in SIZES],
    "fly-cl": [compared("fly-cl", fly_cl, expansion=size, **FLY) for size in SIZES],
    "loranpac": [
        compared("loranpac", loranpac(rank), expansion=size, rank=rank) for size, rank in ((90, 50), (90, 15), (20, 50))
    ],
    "anacp": [compared("anacp", anacp, expansion=size, **ANACP) for size in SIZES],
    "ds-al": [compared("ds-al", ds_al, buffer=size, **DS_AL) for size in SIZES],
    "f-oal": [compared("f-oal", f_oal, buffer=size) for size in SIZES],
}
