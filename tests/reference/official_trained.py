"""Learners that are trained or iterated, in float64 loops from their formulas; each names the official code.

What is drawn at random (initial weights, the order of rows, samples) is the learner's own draw.
"""

import numpy as np
import torch
from reference.closed_form_plain import class_means, softmax, unit
from reference.official import DIM, Comparison, Scores
from reference.official_training import cosine_rate, train
from sklearn.svm import LinearSVC

from tosca_cache.learners.fetril import SGD
from tosca_cache.learners.learning import LinearKind
from tosca_cache.seeds import derive_seed, numpy_generator
from tosca_cache.train.batches import epoch_batches


def descend(tensors, batches, settings, loss):
    """SGD with momentum and weight decay; batches: (epoch, whatever the loss takes)."""
    moving = [torch.zeros_like(t) for t in tensors]
    for epoch, batch in batches:
        leaves = [t.requires_grad_() for t in tensors]
        gradients = torch.autograd.grad(loss(batch), leaves)
        with torch.no_grad():
            for tensor, velocity, gradient in zip(tensors, moving, gradients, strict=True):
                velocity.mul_(settings.momentum).add_(gradient + settings.weight_decay * tensor)
                tensor.sub_(cosine_rate(settings, epoch) * velocity)
    return [t.detach() for t in tensors]


# FeTrIL


def pseudo_rows(case, metric):
    """Of each task: rows and labels, those of a past class moved there from the nearest class of the task.

    GregoirePetit/FeTrIL, codes/compute_distances.py (Euclidean); the paper and dipamgoswami/FeCAM have cosine.
    """
    means = []
    for x, labels, classes in zip(case.x, case.labels, case.classes, strict=True):
        means += [*class_means(x, labels, classes)]
        current, rows, owners = np.stack(means[classes.start :]), [], []
        for c, mean in enumerate(means):
            far = ((current - mean) ** 2).sum(1) if metric == "euclidean" else -unit(current) @ unit(mean)
            source = c if c in classes else classes.start + int(far.argmin())
            rows.append(x[labels == source] - means[source] + mean)
            owners += [c] * len(rows[-1])
        yield np.concatenate(rows), np.array(owners)


def fetril(metric, tolerance):
    """GregoirePetit/FeTrIL, codes/train_classifiers.py: one linear SVM for each class against all others, unit rows."""

    def plain(case):
        found = []
        for task, (rows, owners) in enumerate(pseudo_rows(case, metric)):
            asked, scores = unit(case.asked(task + 1).astype(np.float64)), []
            for c in range(owners.max() + 1):
                svm = LinearSVC(penalty="l2", dual=False, tol=tolerance, C=1.0, max_iter=10_000)
                scores.append(svm.fit(unit(rows), owners == c).decision_function(asked))
            found.append(np.stack(scores, 1))
        return found

    return plain


def fetril_sgd(case):
    """dipamgoswami/FeCAM, models/fetril.py and exps/fetril.json: a linear layer that goes on from task to task."""
    weight, bias, found = torch.zeros(0, DIM).double(), torch.zeros(0).double(), []
    for task, (rows, owners) in enumerate(pseudo_rows(case, "euclidean")):
        generator = torch.Generator().manual_seed(derive_seed(case.seed, "fetril rows", task))
        fresh = (2 * torch.rand(len(case.classes[task]), DIM, generator=generator) - 1) * (3 / DIM) ** 0.5
        weight, bias = torch.cat([weight, fresh.double()]), torch.cat([bias, torch.zeros(len(fresh)).double()])
        x, y = torch.from_numpy(rows), torch.from_numpy(owners)
        batches = epoch_batches(len(x), 0, epochs=50, batch_size=128, seed=case.seed, task=task)

        def loss(chosen, weight=weight, bias=bias, x=x, y=y):
            return torch.nn.functional.cross_entropy(x[chosen] @ weight.T + bias, y[chosen])

        weight, bias = descend([weight, bias], ((b.epoch, b.rows) for b in batches), SGD, loss)
        found.append((torch.from_numpy(case.asked(task + 1)).double() @ weight.T + bias).numpy())
    return found


# LAME


def lame(affinity, k=5, size=10):
    """fiveai/LAME, src/adaptation/lame.py: Y <- softmax(log P + K Y) until its energy stays; over cosines / (1 / 16)."""

    def plain(case):
        means, found = [], []
        for task, (x, labels, classes) in enumerate(zip(case.x, case.labels, case.classes, strict=True)):
            means += [*class_means(x, labels, classes)]
            z = unit(case.asked(task + 1).astype(np.float64))
            P = softmax(16 * z @ unit(np.stack(means)).T)
            order = numpy_generator(case.seed, "lame batches").permutation(len(z))
            for rows in np.split(order, range(size, len(order), size)):
                P[rows] = settled(-np.log(P[rows] + 1e-10), kernel(z[rows], affinity, k))
            found.append(P)
        return found

    return plain


def kernel(z, affinity, k):
    distance = np.linalg.norm(z[:, None] - z, axis=2)
    if affinity == "rbf":
        width = np.sort(distance, 1)[:, min(k, len(z)) - 1].mean()
        return np.exp(-(distance**2) / (2 * width**2))
    near, K = np.argsort(distance, 1)[:, 1 : min(k + 1, len(z))], np.zeros_like(distance)
    np.put_along_axis(K, near, 1.0, 1)
    return K


def settled(unary, K):
    Y, before = softmax(-unary), np.inf
    for step in range(100):
        pull = K @ Y
        Y = softmax(pull - unary)
        energy = (unary * Y - pull * Y + Y * np.log(Y.clip(1e-20))).sum()
        if step > 1 and abs(energy - before) <= 1e-8 * abs(before):
            break
        before = energy
    return Y


# SLCA


def slca(case):
    """GengDavid/SLCA, models/slca.py: a head for each task by its own classes; then all on samples, with their logits
    divided by the mean over the tasks of the norm of each task's logits, and by 0.1. The next task goes on from before.
    """
    learner = case.learner("slca", per_class=8)
    heads, found = [], []
    for task in case.stream:
        head = case.rows_at_start(LinearKind(), task.number)

        def own(_, x, y, head=head, start=task.classes.start):
            return torch.nn.functional.cross_entropy(x @ head["weight"].T + head["bias"], y - start)

        train(case, task.number, {}, head, own)
        heads += [head["weight"], head["bias"]]
        learner.observe(task)
        aligned = [t.clone() for t in heads]
        if task.number:
            samples = drawn_samples(case, learner, task.number)
            descend(aligned, samples, learner.alignment.settings, lambda batch: normalised(batch, aligned))  # noqa: B023
        x = torch.from_numpy(case.asked(task.number + 1)).double()
        found.append(torch.cat([x @ w.T + b for w, b in pairs(aligned)], 1).detach().numpy())
    return found


def pairs(tensors):
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def normalised(batch, tensors):
    x, y = batch
    each = [x @ weight.T + bias for weight, bias in pairs(tensors)]
    norms = torch.stack([logits.norm(dim=1) + 1e-7 for logits in each], 1).mean(1, keepdim=True)
    return torch.nn.functional.cross_entropy(torch.cat(each, 1) / norms / 0.1, y)


def drawn_samples(case, learner, task):
    """Samples of N(s mu, Sigma + 1e-4 I), s = 0.9 + 0.1 (t_c + 1) / (t + 1), from those that the learner draws at s = 1."""
    seen = zip(case.x[: task + 1], case.labels[: task + 1], case.classes[: task + 1], strict=True)
    means = torch.from_numpy(np.concatenate([class_means(x, labels, classes) for x, labels, classes in seen]))
    scale = torch.tensor([0.9 + 0.1 * (c // 2 + 1) / (task + 1) for c in range(len(means))]).double()
    seed = derive_seed(case.seed, "alignment", task)
    for step in learner.alignment._steps(learner.gaussians, seed, None, torch.device("cpu")):
        y = step.targets[0]
        yield step.epoch, (step.x[0].double() + ((scale - 1).unsqueeze(1) * means)[y], y)


LOOSE = {"atol": 2e-4, "rtol": 1e-3}
COMPARED = {
    "fetril": [
        Comparison(fetril("euclidean", 1e-4), Scores("fetril", {"classifier": "svc"}), classes=True, atol=1e-3),
        Comparison(fetril("euclidean", 1e-9), Scores("fetril"), atol=5e-3),
        Comparison(fetril("cosine", 1e-9), Scores("fetril", {"metric": "cosine"}), atol=5e-3),
        Comparison(fetril_sgd, Scores("fetril", {"classifier": "sgd"}), classes=True, **LOOSE),
    ],
    "lame": [
        Comparison(lame(affinity), Scores("lame", {"affinity": affinity, "batch_size": 10}), classes=True, atol=1e-3)
        for affinity in ("knn", "rbf")
    ],
    "slca": [Comparison(slca, Scores("slca", {"per_class": 8}), classes=True, **LOOSE)],
}
