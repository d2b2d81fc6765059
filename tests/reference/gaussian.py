"""Features of Gaussian classes, and streams of them."""

import numpy as np

from tosca_cache.tasks import Arrays, TaskStream

# Rows of each class in each domain: shared classes, and some that not all domains have.
DOMAINS = np.array([[9, 9, 9, 0], [9, 9, 0, 9], [9, 9, 9, 9]])


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


def make_splits(rows, tests, *, classes=8, dim=6, views=3, test_views=1, noise=0.7):
    """Train and test rows of the same classes, so many of each class: a number for all, or one each."""
    generator = np.random.default_rng(5)
    means = 2 * generator.normal(size=(classes, dim))
    sizes = ((rows, views), (tests, test_views))
    return [make_arrays(generator, np.zeros(classes, int) + each, dim, n, means, noise) for each, n in sizes]


def make_stream(increment, *, rows=9, tests=5, init_cls=None, seed=3, **shape):
    """A stream of `make_splits`."""
    train, test = make_splits(rows, tests, **shape)
    names = [str(c) for c in range(train.labels.max() + 1)]
    return TaskStream(train, test, class_names=names, increment=increment, init_cls=init_cls, seed=seed)


def make_domain_stream(counts=DOMAINS, *, test_views=1, dim=6, noise=0.7, seed=3):
    """A stream of three domains of four classes."""
    generator = np.random.default_rng(5)
    means, shifts = 2 * generator.normal(size=(4, dim)), generator.normal(size=(3, dim))
    train, test = (make_domain_arrays(generator, counts, dim, views, means, shifts, noise) for views in (3, test_views))
    return TaskStream(train, test, class_names="abcd", incremental="domains", domain_names="xyz", seed=seed)


def clean_rows(stream, tasks=None):
    """Clean test rows of the first tasks, or of all, [n, d]."""
    return np.concatenate([stream.test(t).features[:, 0] for t in range(tasks or len(stream))])
