"""Closed-form classifiers in plain numpy, all rows at once, from their equations; nothing is imported from the package."""

import numpy as np


def ridge_weights(h, y, lam, weights=None):
    """(H^T D H + lambda I)^-1 H^T D Y by an ordinary least-squares solve of the stacked system."""
    root = np.sqrt(np.ones(len(h)) if weights is None else weights)[:, None]
    stacked = np.concatenate([root * h, np.sqrt(lam) * np.eye(h.shape[1])])
    target = np.concatenate([root * y, np.zeros((h.shape[1], y.shape[1]))])
    return np.linalg.lstsq(stacked, target, rcond=None)[0]


def lda_scores(x, labels, rows, covariance, regular):
    """Uniform priors; covariance: `total` or `within`; regular: what is made of it before it is inverted."""
    classes = labels.max() + 1
    means = np.stack([x[labels == c].mean(0) for c in range(classes)])
    centred = x - (x.mean(0) if covariance == "total" else means[labels])
    freedom = len(x) - (1 if covariance == "total" else classes)
    inverse = np.linalg.inv(regular(centred.T @ centred / max(freedom, 1)))
    weights = means @ inverse
    return rows @ weights.T - 0.5 * (weights * means).sum(1)


def fecam_distances(x, labels, rows, a1, a2):
    """The script for vision transformers, class by class with a pseudo-inverse; a covariance of zero has the identity."""
    distances = []
    for c in range(labels.max() + 1):
        own = x[labels == c]
        difference = rows - own.mean(0)
        covariance = np.cov(own.T, ddof=1) if len(own) > 1 else np.zeros((x.shape[1],) * 2)
        distances.append(
            np.einsum("nd,de,ne->n", difference, _precision(np.atleast_2d(covariance), a1, a2), difference)
        )
    return np.stack(distances, 1)


def _precision(covariance, a1, a2):
    if np.trace(covariance) < 1e-18:
        return np.eye(len(covariance))
    off = covariance - np.diag(np.diag(covariance))
    m1, m2 = np.diag(covariance).mean(), off.sum() / max(np.count_nonzero(off), 1)
    shrunk = covariance + a1 * m1 * np.eye(len(off)) + a2 * m2 * (1 - np.eye(len(off)))
    deviation = np.sqrt(np.diag(shrunk))
    return np.linalg.pinv(shrunk / np.outer(deviation, deviation), rcond=1e-12, hermitian=True)
