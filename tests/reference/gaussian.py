"""Features of Gaussian classes."""

import numpy as np

from tosca_cache.tasks import Arrays


def make_arrays(generator, counts, dim, views, means, noise=1.0):
    """Features [N, views, dim] around the class means, with counts[c] rows of class c in random order."""
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    features = means[labels][:, None] + noise * generator.normal(size=(len(labels), views, dim))
    return Arrays(features.astype(np.float32), labels)
