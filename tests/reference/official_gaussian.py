"""Learners of class means and covariances, class by class from their formulas; each names the official code."""

from functools import cached_property

import numpy as np
from reference.closed_form_plain import class_means, correlations, fecam_precision, mahalanobis, shrunk, unit
from reference.official import DIM, Case, Comparison, Scores, compared, joined
from sklearn.covariance import OAS


def discriminants(inverse):
    """x^T P mu - mu^T P mu / 2 with P = inverse(rows, rows about their class means, class means)."""

    def scores(parts, asked, _):
        x, labels = joined(parts)
        means = class_means(x, labels)
        weights = inverse(x, x - means[labels], means) @ means.T
        return asked @ weights - 0.5 * (weights * means.T).sum(0)

    return scores


def fsa(x, centred, means):
    """aresPanos/fsa, src/utils.py, compute_lda_head: the covariance of all rows about their mean, plus the identity."""
    return np.linalg.inv(np.cov(x.T) + np.eye(DIM))


def slda(case):
    """tyler-hayes/Deep_SLDA, SLDA_Model.py and experiment.py: the first task at once, with OAS; then row by row."""
    means, counts, found = np.zeros((0, DIM)), np.zeros(0), []
    for task, (x, labels, classes) in enumerate(zip(case.x, case.labels, case.classes, strict=True)):
        means, counts = np.pad(means, ((0, len(classes)), (0, 0))), np.pad(counts, (0, len(classes)))
        if not task:
            means, counts = class_means(x, labels, classes), np.bincount(labels).astype(float)
            S = OAS(assume_centered=True).fit(x - means[labels]).covariance_
            seen = len(x)
        for row, y in zip(x, labels, strict=True) if task else ():
            S = (seen * S + seen / (seen + 1) * np.outer(row - means[y], row - means[y])) / (seen + 1)
            means[y] += (row - means[y]) / (counts[y] + 1)
            counts[y], seen = counts[y] + 1, seen + 1
        weights = np.linalg.pinv((1 - 1e-4) * S + 1e-4 * np.eye(DIM)) @ means.T
        found.append(case.asked(task + 1).astype(np.float64) @ weights - 0.5 * (weights * means.T).sum(0))
    return found


def slda_fixed(x, centred, means):
    """What ours has in its place: rows about final class means, divisor n - C."""
    return np.linalg.inv((1 - 1e-4) * centred.T @ centred / (len(x) - len(means)) + 1e-4 * np.eye(DIM))


def slda_oas(x, centred, means):
    """The same covariance, shrunk by the share of the mean variance that scikit-learn's OAS finds."""
    S, share = centred.T @ centred / (len(x) - len(means)), OAS(assume_centered=True).fit(centred).shrinkage_
    return np.linalg.inv((1 - share) * S + share * np.trace(S) / DIM * np.eye(DIM))


def fecam_common(parts, asked, _):
    """One covariance: the tasks' ones about their means, averaged by their classes; shrunk, and made correlations."""
    x, labels = joined(parts)
    S = np.mean([np.cov(unit(rows).T) for rows, _ in parts], 0)
    return -mahalanobis(unit(asked), class_means(unit(x), labels), np.linalg.inv(correlations(shrunk(S, 1, 0, 1))))


def after_each_task(case, mean, inverse, asked):
    """-(z - m)^T inverse(rows of a class) (z - m) after each task, with z = asked(row) and m = mean(rows of a class)."""
    means, inverses, found = [], [], []
    for task, (x, labels, classes) in enumerate(zip(case.x, case.labels, case.classes, strict=True)):
        for c in classes:
            means.append(mean(x[labels == c]))
            inverses.append(inverse(x[labels == c]))
        z = asked(case.asked(task + 1).astype(np.float64))
        found.append(-np.concatenate([mahalanobis(z, m[None], P) for m, P in zip(means, inverses, strict=True)], 1))
    return found


def fecam_vit(a1, a2):
    """dipamgoswami/FeCAM, FeCAM_vit_cifar100.py and FeCAM_vit_imagenet-r.py; a single row has I here, NaN there."""
    inverse = lambda rows: fecam_precision(unit(rows), a1, a2)  # noqa: E731
    return lambda case: after_each_task(case, lambda rows: unit(rows).mean(0), inverse, unit)


def power(rows, beta):
    return np.log(rows) if beta == 0 else rows**beta


def fecam_cnn(beta, diagonal=False):
    """The same repository, models/fecam.py, models/base.py and utils/maha_utils.py: shrunk when computed, and again.

    Means are taken of features as they are and then raised to the power; all is brought to unit length at the end.
    """

    def inverse(rows):
        if len(rows) == 1:
            return np.eye(rows.shape[1]) * (rows.shape[1] ** 0.5 if diagonal else 1)
        covariance = shrunk(np.cov(power(rows, beta).T), 1, 1, 2)
        if diagonal:
            variances = np.diag(covariance)
            return np.diag(np.linalg.norm(variances) / variances)
        return np.linalg.pinv(correlations(covariance))

    def plain(case):
        mean = lambda rows: unit(power(rows.mean(0), beta))  # noqa: E731
        return after_each_task(Positive(case.kind, case.seed), mean, inverse, lambda rows: unit(power(rows, beta)))

    return plain


def fecam_pilot(case):
    """sun-hailong/LAMDA-PILOT, models/fecam.py: covariance + 100 I is taken for observations, whose correlations count."""

    def inverse(rows):
        covariance = np.cov(rows.T) if len(rows) > 1 else 0
        found = np.corrcoef(covariance + 100 * np.eye(rows.shape[1]))
        return np.linalg.pinv(found, rcond=rows.shape[1] * np.finfo(np.float32).eps)

    return after_each_task(case, lambda rows: unit(rows.mean(0)), inverse, unit)


class Positive(Case):
    """Features of a backbone that ends in a ReLU."""

    @cached_property
    def stream(self):
        return self.made(lambda features: np.maximum(features, 0))


def fecam(plain, **options):
    return Comparison(plain, Scores("fecam", options), classes=True)


def fecam_positive(plain, **options):
    ours = Scores("fecam", CNN | options)
    return Comparison(plain, lambda case: ours(Positive(case.kind, case.seed)), classes=True)


CNN = {"a1": 1.0, "a2": 1.0, "shrinkages": 2, "unit_means": True}
COMPARED = {
    "fsa-lda": [compared("fsa-lda", discriminants(fsa))],
    "slda": [
        Comparison(slda, Scores("slda", {"estimator": "streaming"}), classes=True),
        compared("slda", discriminants(slda_fixed)),
        compared("slda", discriminants(slda_oas), estimator="oas"),
    ],
    "fecam": [
        fecam(fecam_vit(1, 0)),
        fecam(fecam_vit(10, 10), a1=10.0, a2=10.0),
        fecam_positive(fecam_cnn(0.5), tukey=0.5),
        fecam_positive(fecam_cnn(0.5, diagonal=True), tukey=0.5, covariance="diagonal"),
    ],
    "fecam-common": [compared("fecam-common", fecam_common)],
    "fecam-pilot": [Comparison(fecam_pilot, Scores("fecam-pilot"), classes=True)],
}
