"""Learners of class means, of nothing but their formulas; each names the official code that has them."""

import numpy as np
from reference.closed_form_plain import class_means, unit
from reference.official import Comparison, Scores


def simplecil(case):
    """sun-hailong/LAMDA-PILOT, models/simplecil.py and backbone/linears.py: cosines with means of features as they are."""
    means, found = [], []
    for task, (x, labels, classes) in enumerate(zip(case.x, case.labels, case.classes, strict=True)):
        means += [*class_means(x, labels, classes)]
        found.append(unit(case.asked(task + 1).astype(np.float64)) @ unit(np.stack(means)).T)
    return found


def nmc(case):
    """Pauljanson002/pretrained-cl, main_cifar100.py: the least distance from a unit vector to means of unit vectors."""
    means, found = [], []
    for task, (x, labels, classes) in enumerate(zip(case.x, case.labels, case.classes, strict=True)):
        means += [*class_means(unit(x), labels, classes)]
        rows = unit(case.asked(task + 1).astype(np.float64))
        found.append(-((rows[:, None] - np.stack(means)) ** 2).sum(2))
    return found


def teen(case, alpha, tau):
    """wangkiw/TEEN, models/teen/Network.py: the first task's means as they are, later ones drawn towards them once."""
    prototypes, found = np.zeros((0, 1)), []
    for task, (x, labels, classes) in enumerate(zip(case.x, case.labels, case.classes, strict=True)):
        means = class_means(x, labels, classes)
        if task:
            new, base = unit(means), unit(prototypes[: case.classes[0].stop])
            likeness = np.exp(tau * new @ base.T)
            drawn = unit(likeness / likeness.sum(1, keepdims=True) @ base)
            means = np.concatenate([prototypes, (1 - alpha) * new + alpha * drawn])
        prototypes = means
        found.append(unit(case.asked(task + 1).astype(np.float64)) @ unit(prototypes).T)
    return found


COMPARED = {
    "simplecil": [Comparison(simplecil, Scores("simplecil"), classes=True)],
    "nmc": [Comparison(nmc, Scores("nmc"), classes=True)],
    "teen": [
        Comparison(lambda case: teen(case, 0.5, 16.0), Scores("teen"), classes=True),
        Comparison(lambda case: teen(case, 0.1, 16.0), Scores("teen", {"alpha": 0.1}), classes=True),
    ],
}
