"""The metrics in plain loops over lists, percent in and out; nothing here is imported from the package.

R is a list of T rows of T numbers, None where nothing was measured (above the diagonal).
"""

import math


def mean(values):
    return sum(values) / len(values) if values else math.nan


def accuracy(prediction, labels):
    right = 0
    for predicted, label in zip(prediction, labels, strict=True):
        if predicted == label:
            right += 1
    return 100 * right / len(labels) if labels else math.nan


def accuracy_over_samples(R, counts, after):
    rows = right = 0
    for task in range(after + 1):
        right += counts[task] * R[after][task]
        rows += counts[task]
    return right / rows


def accuracy_over_tasks(R, after):
    return mean([R[after][task] for task in range(after + 1)])


def forgetting(R):
    T, drops = len(R), []
    for task in range(T - 1):
        best = R[task][task]
        for after in range(task, T - 1):
            best = max(best, R[after][task])
        drops.append(best - R[T - 1][task])
    return mean(drops)


def backward_transfer(R):
    T = len(R)
    return mean([R[T - 1][task] - R[task][task] for task in range(T - 1)])


def harmonic_mean(R, counts):
    T = len(R)
    if T == 1:
        return math.nan
    old = R[-1][0]
    new = sum(counts[task] * R[-1][task] for task in range(1, T)) / sum(counts[1:])
    return 0.0 if old + new == 0 else 2 * old * new / (old + new)
