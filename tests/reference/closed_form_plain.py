"""Formulas in plain numpy that several comparisons share, all rows at once; nothing is imported from the package."""

import numpy as np


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def one_hot(labels, classes=None):
    return np.eye(classes or labels.max() + 1)[labels]


def class_means(x, labels, classes=None):
    return np.stack([x[labels == c].mean(0) for c in (range(labels.max() + 1) if classes is None else classes)])


def mahalanobis(rows, means, precision):
    difference = rows[:, None] - means
    return np.einsum("ncd,de,nce->nc", difference, precision, difference)


def ridge_weights(h, y, lam, weights=None):
    """(H^T D H + lambda I)^-1 H^T D Y by an ordinary least-squares solve of the stacked system."""
    root = np.sqrt(np.ones(len(h)) if weights is None else weights)[:, None]
    stacked = np.concatenate([root * h, np.sqrt(lam) * np.eye(h.shape[1])])
    target = np.concatenate([root * y, np.zeros((h.shape[1], y.shape[1]))])
    return np.linalg.lstsq(stacked, target, rcond=None)[0]


def fecam_distances(x, labels, rows, a1, a2):
    """The script for vision transformers, class by class with a pseudo-inverse; a covariance of zero has the identity."""
    distances = []
    for c in range(labels.max() + 1):
        own = x[labels == c]
        distances.append(mahalanobis(rows, own.mean(0)[None], fecam_precision(own, a1, a2)))
    return np.concatenate(distances, 1)


def shrunk(covariance, a1, a2, times=1):
    """a1 times the mean variance to the variances, a2 times the mean of the other elements that are not 0 to those."""
    identity = np.eye(len(covariance))
    for _ in range(times):
        other = covariance * (1 - identity)
        mean = other.sum() / max((other != 0).sum(), 1)
        covariance = covariance + a1 * np.diag(covariance).mean() * identity + a2 * mean * (1 - identity)
    return covariance


def correlations(covariance):
    deviation = np.sqrt(np.diag(covariance))
    return covariance / np.outer(deviation, deviation)


def fecam_precision(rows, a1, a2):
    covariance = np.atleast_2d(np.cov(rows.T)) if len(rows) > 1 else np.zeros((rows.shape[1],) * 2)
    if np.trace(covariance) < 1e-18:
        return np.eye(len(covariance))
    return np.linalg.pinv(correlations(shrunk(covariance, a1, a2)), rcond=1e-12, hermitian=True)
