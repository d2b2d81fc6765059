"""Features of Gaussian classes."""

import numpy as np

from tosca_cache.tasks import Arrays


def make_arrays(generator, counts, dim, views, means, noise=1.0):
    """Features [N, views, dim] around the class means, with counts[c] rows of class c in random order."""
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    features = means[labels][:, None] + noise * generator.normal(size=(len(labels), views, dim))
    return Arrays(features.astype(np.float32), labels)


def make_domain_arrays(generator, counts, dim, views, means, shifts, noise=1.0):
    """As `make_arrays`, counts[d][c] rows of class c in domain d, which moves its rows by shifts[d]; in random order."""
    pairs = [(d, c) for d, row in enumerate(counts) for c, count in enumerate(row) for _ in range(count)]
    domains, labels = generator.permutation(np.array(pairs)).T.copy()
    features = (means[labels] + shifts[domains])[:, None] + noise * generator.normal(size=(len(labels), views, dim))
    return Arrays(features.astype(np.float32), labels, domains=domains)
