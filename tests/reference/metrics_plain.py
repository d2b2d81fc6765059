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


def forgetting_pilot(R):
    """A table with zeros where nothing was measured; the best of every column against its last entry."""
    T = len(R)
    table = [[R[after][task] if task <= after else 0.0 for task in range(T)] for after in range(T)]
    return mean([max(row[task] for row in table) - table[T - 1][task] for task in range(T - 1)])


def forgetting_mammoth(R):
    """Row t holds the tasks up to t and, if it was tested, the next one; the rest is zero."""
    T, table = len(R), []
    for after in range(T):
        row = [R[after][task] for task in range(after + 1)]
        if after + 1 < T and R[after][after + 1] is not None:
            row.append(R[after][after + 1])
        table.append(row + [0.0] * (T - len(row)))
    return mean([max(row[task] for row in table) - table[T - 1][task] for task in range(T - 1)])


def forgetting_avalanche(R):
    """First value of every task against its last one; a task tested only once says nothing."""
    first, last = {}, {}
    for after, row in enumerate(R):
        last = {}
        for task in range(after + 1):
            if task == after:
                first[task] = row[task]
            else:
                last[task] = row[task]
    return mean([first[task] - last[task] for task in first if task in last])


def forgetting_continuum_release(R):
    T = len(R)
    if T < 2:
        return math.nan
    total = 0.0
    for task in range(T - 2):
        total += max(R[after][task] for after in range(task, T - 2)) - R[T - 1][task]
    return total / (T - 1)


def backward_transfer(R):
    T = len(R)
    return mean([R[T - 1][task] - R[task][task] for task in range(T - 1)])


def backward_transfer_continuum(R):
    return mean([R[after][task] - R[task][task] for after in range(len(R)) for task in range(after)])


def backward_transfer_continuum_release(R):
    T = len(R)
    if T < 2:
        return math.nan
    total = 0.0
    for after in range(T):
        for task in range(after - 1):
            total += R[after][task] - R[task][task]
    return total / (T * (T - 1) / 2)


def forward_transfer(R, untrained):
    gains = []
    for task in range(1, len(R)):
        if R[task - 1][task] is None:
            return math.nan
        gains.append(R[task - 1][task] - untrained[task])
    return mean(gains)


def harmonic_mean(R, counts, base):
    T = len(R)
    old = sum(counts[task] * R[-1][task] for task in range(base)) / sum(counts[:base])
    if base >= T:
        return math.nan
    new = sum(counts[task] * R[-1][task] for task in range(base, T)) / sum(counts[base:])
    return 0.0 if old + new == 0 else 2 * old * new / (old + new)


def within_task_accuracy(scores, labels, tasks, task_of_class):
    prediction = []
    for row, task in zip(scores, tasks, strict=True):
        candidates = [c for c in range(len(row)) if task_of_class[c] == task]
        prediction.append(max(candidates, key=lambda c, row=row: row[c]))
    return accuracy(prediction, labels)
