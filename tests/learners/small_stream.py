"""A stream of six classes in ten dimensions, small settings, and a learner taken over it."""

import numpy as np

from tosca_cache.config import Settings
from tosca_cache.tasks import Arrays, TaskStream

DIM, CLASSES, SEED = 10, 6, 7
SETTINGS = Settings(epochs=5, batch_size=8, mlp_ratio=2, se_ratio=2, weight_decay=1e-3)


def make_stream(increment=2, *, rows=9, seed=3, spread=0.5, uneven=False, shared=0.0):
    generator = np.random.default_rng(11)
    means = shared + 2 * generator.normal(size=(CLASSES, DIM))

    def split(each):
        labels = np.concatenate([np.full(each + (c if uneven else 0), c) for c in range(CLASSES)])
        noise = generator.normal(size=(len(labels), 3, DIM))
        return Arrays((means[labels][:, None] + spread * noise).astype(np.float32), labels)

    names = [str(c) for c in range(CLASSES)]
    return TaskStream(split(rows), split(6), class_names=names, increment=increment, seed=seed)


def learn(learner, stream):
    for task in stream:
        learner.observe(task)
    return learner


def asked(stream):
    every = [stream.test(t) for t in range(len(stream))]
    return np.concatenate([test.features[:, 0] for test in every]), np.concatenate([test.labels for test in every])
