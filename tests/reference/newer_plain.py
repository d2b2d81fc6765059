"""Newer closed-form learners in plain float64 numpy, from their equations; nothing is imported from the package.

Rows come as `parts`: one (x [n, d], labels [n]) for each task, in order. What is random is given.
"""

import numpy as np
from reference.closed_form_plain import _precision, ridge_weights
from scipy.special import erf
from sklearn.covariance import oas
from sklearn.model_selection import StratifiedKFold


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def joined(parts):
    return np.concatenate([x for x, _ in parts]), np.concatenate([labels for _, labels in parts])


def fourier(x, weights, phases):
    return np.sqrt(2 / weights.shape[1]) * np.cos(x @ weights + phases)


def centred_rows(z, labels):
    means = np.stack([z[labels == c].mean(0) for c in range(labels.max() + 1)])
    return means, z - means[labels]


def mahalanobis(rows, means, precision):
    difference = rows[:, None] - means
    return np.einsum("ncd,de,nce->nc", difference, precision, difference)


def klda_distances(z, labels, rows, ridge):
    """(z - mu_c)^T (S + r I)^-1 (z - mu_c), S the scatter, not divided by n."""
    means, centred = centred_rows(z, labels)
    return mahalanobis(rows, means, np.linalg.inv(centred.T @ centred + ridge * np.eye(z.shape[1])))


def oas_distances(z, labels, rows):
    """With the covariance within classes, shrunk as scikit-learn's OAS does."""
    means, centred = centred_rows(z, labels)
    covariance, _ = oas(centred, assume_centered=True)
    return mahalanobis(rows, means, np.linalg.inv(covariance))


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


def fly_weights(parts, projection, count, lambdas):
    x, labels = joined(parts)
    classes = labels.max() + 1
    last = winners(parts[-1][0], projection, count)
    lam = gcv(last, one_hot(parts[-1][1], classes), lambdas)
    return ridge_weights(winners(x, projection, count), one_hot(labels, classes), lam), lam


def truncated_weights(parts, projection, rank):
    """After every task the singular value decomposition of what was kept and the new rows, truncated; then the scores."""
    kept, seen = np.zeros((0, projection.shape[1])), 0
    for x, _ in parts:
        seen += len(x)
        _, s, v = np.linalg.svd(np.concatenate([kept, np.maximum(x @ projection, 0)]), full_matrices=False)
        count = min(max(1, round(0.75 * seen)), rank, len(s))
        kept = s[:count, None] * v[:count]
    x, labels = joined(parts)
    q = np.maximum(x @ projection, 0).T @ one_hot(labels, labels.max() + 1)
    s = np.linalg.norm(kept, axis=1, keepdims=True)
    v = kept / s
    return v.T @ ((v @ q) / s**2)


def ds_al_scores(parts, rows, projection, gamma, gamma_comp, ratio):
    seen, left, known = [], [], 0
    classes = max(labels.max() for _, labels in parts) + 1
    for number, (x, labels) in enumerate(parts):
        seen_x, seen_labels = joined(parts[: number + 1])
        main = ridge_weights(np.maximum(seen_x @ projection, 0), one_hot(seen_labels, classes), gamma)
        residual = one_hot(labels, classes) - np.maximum(x @ projection, 0) @ main
        residual[:, :known] = 0
        residual[:, labels.max() + 1 :] = 0
        seen.append(np.tanh(x @ projection))
        left.append(residual)
        known = labels.max() + 1
    comp = ridge_weights(np.concatenate(seen), np.concatenate(left), gamma_comp)
    return np.maximum(rows @ projection, 0) @ main + ratio * np.tanh(rows @ projection) @ comp


def fenec_distances(x, labels, rows, centres, a1, a2, nearest=None):
    """The least distances to a class's centres, by its shrunk correlations; the last one again where there are fewer."""
    found = []
    for c, points in enumerate(centres):
        own = x[labels == c]
        covariance = np.cov(own.T, ddof=1) if len(own) > 1 else np.zeros((x.shape[1],) * 2)
        each = np.sort(mahalanobis(rows, points, _precision(covariance, a1, a2)), 1)
        found.append(each[:, 0] if nearest is None else each[:, np.minimum(np.arange(nearest), len(points) - 1)])
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
        p = np.exp(logits - logits.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - one_hot(labels[rows], logits.shape[1])) / len(rows)
        gradient = np.array([(error * slope.sum(2)).sum(), (error * (slope * log).sum(2)).sum()])
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        numbers = numbers - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return numbers


def layup_weights(parts, lambdas, folds=4):
    x, labels = joined(parts)
    before = joined(parts[:-1]) if len(parts) > 1 else (x[:0], labels[:0])
    last, own = parts[-1]
    classes, accuracies = labels.max() + 1, np.zeros((folds, len(lambdas)))
    for fold, (fit, held) in enumerate(StratifiedKFold(folds).split(last, own)):
        rows, targets = np.concatenate([before[0], last[fit]]), np.concatenate([before[1], own[fit]])
        for i, lam in enumerate(lambdas):
            answers = (last[held] @ ridge_weights(rows, one_hot(targets, classes), lam)).argmax(1)
            accuracies[fold, i] = (answers == own[held]).mean()
    lam = lambdas[int(accuracies.mean(0).argmax())]
    return ridge_weights(x, one_hot(labels, classes), lam), lam


def root(matrix, power):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**power) @ vectors.T


def spread_means(means, sigma, alpha, back):
    centre = means.mean(0)
    u, s, v = np.linalg.svd((means - centre) @ root(sigma, -0.5), full_matrices=False)
    s[:-1] += alpha  # centred means have one direction less than there are classes
    return unit(u @ np.diag(s) @ v @ root(sigma, back) + centre)


def anacp_scores(x, labels, rows, projections, last, samples, ridge, alpha, back):
    """projections: of the heads; last: of the classifier; samples: [C, n, d], drawn around the class means."""
    classes = labels.max() + 1
    means, centred = centred_rows(x, labels)
    sigma = centred.T @ centred / max(len(x) - classes, 1) + 1e-4 * np.eye(x.shape[1])
    targets = spread_means(means, sigma, alpha, back)
    thetas = []
    for projection in projections:
        z = gelu(x @ projection)
        right = sum((labels == c).sum() * np.outer(z[labels == c].mean(0), targets[c]) for c in range(classes))
        thetas.append(np.linalg.solve(z.T @ z + ridge * np.eye(z.shape[1]), right))

    def adapted(x):
        pairs = zip(projections, thetas, strict=True)
        return gelu(np.mean([unit(gelu(x @ projection) @ theta) for projection, theta in pairs], 0) @ last)

    h = adapted(samples.reshape(-1, x.shape[1]))
    return adapted(rows) @ ridge_weights(h, one_hot(np.repeat(range(classes), samples.shape[1]), classes), ridge)
