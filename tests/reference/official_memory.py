"""Learners that keep rows, keys or sums: their published formulas in numpy, float64, row by row.

AdaNPC: yfzhang114/AdaNPC, domainbed/knn.py (`MomentumQueue`) and domainbed/adapt_algorithms.py (`AdaNPC`), commit 6fc8256.
DKVB: ftraeuble/discrete_key_value_bottleneck, key_value_bottleneck/core.py, and
ftraeuble/experiments_discrete_key_value_bottleneck, kv_bottleneck_experiments/utils/model.py (votes), commits 1987958 and
bb524e0.
LDA: Hoffbeck and Landgrebe, IEEE Trans. PAMI 18 (1996), with the mean distance of Theiler, Proc. SPIE 8391 (2012).
"""

import numpy as np
import torch
from reference.closed_form_plain import class_means, softmax, unit
from reference.official import Comparison, Scores, from_state, history
from scipy.stats import linregress

# AdaNPC


def adanpc(k, tau=0.1, beta=1.1, batch=32):
    """Votes of the k nearest stored rows; in a batch all are scored before those with confidence join the memory."""

    def scores(case):
        found = []
        for number, classes in enumerate(case.classes):
            memory = list(unit(np.concatenate(case.x[: number + 1])))
            labels = list(np.concatenate(case.labels[: number + 1]))
            x = unit(case.asked(number + 1).astype(np.float64))
            votes = np.zeros((len(x), classes.stop))
            order = case.numbers("adanpc order").permutation(len(x)) if beta <= 1 else np.arange(len(x))
            for start in range(0, len(x), batch):
                rows, joining = order[start : start + batch], []
                for row in rows:
                    cosines = np.array([one @ x[row] for one in memory])
                    near = np.argsort(-cosines)[:k]
                    for weight, i in zip(softmax(cosines[near] / tau), near, strict=True):
                        votes[row, labels[i]] += weight
                    if softmax(votes[row]).max() >= beta:
                        joining.append(row)
                memory += [x[row] for row in joining]
                labels += [votes[row].argmax() for row in joining]
            found.append(votes)
        return found

    return scores


# DKVB

SIZES = {"heads": 6, "keys": 11, "key_dim": 3}  # no usage is exactly a tenth of its share


def projected(case, x, heads, dim):
    """x P_j of every head, [n, heads, dim]: the columns of P_j are random and of unit length."""
    projection = torch.randn(x.shape[1], heads * dim, generator=case.noise("dkvb", "projection"), dtype=torch.float64)
    return (x @ (projection.numpy() / np.linalg.norm(projection.numpy(), axis=0))).reshape(len(x), heads, dim)


def codes(case, state, x):
    """The nearest key of every head, [n, heads]."""
    heads, size, dim = state["codebook.keys"].shape
    u = projected(case, x, heads, dim)
    distances = ((u[:, :, None] - state["codebook.keys"]) ** 2).sum(-1)  # [n, heads, keys]
    return distances.argmin(2) + size * np.arange(heads)


def dkvb_keys(case):
    """Keys after ten epochs of moving averages (decay 0.95) over the first task's rows and views, then frozen.

    average / (smoothed usage), from average N(0, 1) and usage 0; used by less than a tenth of its share of a batch, a key
    lies on a row of the batch until the next one.
    """
    heads, size, dim = SIZES["heads"], SIZES["keys"], SIZES["key_dim"]
    features = case.stream.task(0).train.features.astype(np.float64)
    every = features.reshape(-1, features.shape[2])
    u = projected(case, every[case.numbers("dkvb", "key rows").permutation(len(every))], heads, dim)
    noise = case.noise("dkvb", "keys")
    average = torch.randn(heads, size, dim, generator=noise).double().numpy()
    keys, usage, share = average.copy(), np.zeros((heads, size)), min(256, len(u)) / size
    for _ in range(10):
        for rows in torch.randperm(len(u), generator=noise).split(256):
            batch = u[rows.numpy()]
            nearest = ((batch[:, :, None] - keys) ** 2).sum(-1).argmin(2)  # [b, heads]
            picked = torch.randint(len(batch), (heads, size, 1), generator=noise).numpy()[:, :, 0]
            for head in range(heads):
                for key in range(size):
                    mine = batch[nearest[:, head] == key, head]
                    usage[head, key] = 0.95 * usage[head, key] + 0.05 * len(mine)
                    average[head, key] = 0.95 * average[head, key] + 0.05 * mine.sum(0)
                whole = usage[head].sum()
                smoothed = (usage[head] + 1e-5) / (whole + size * 1e-5) * whole
                keys[head] = average[head] / smoothed[:, None]
                dead = usage[head] < 0.1 * share
                keys[head, dead] = batch[picked[head, dead], head]
    return [keys]


def our_keys(case):
    return [history(case, "dkvb", tuple(SIZES.items()))[-1].state["codebook.keys"]]


def dkvb(case, number, state):
    """Values of the fetched keys, averaged over the heads: "codebook voting"."""
    return state["values"][codes(case, state, case.asked(number + 1).astype(np.float64))].mean(1)


def dkvb_values(rate):
    """Values after SGD at rate 1 on the batch mean of cross-entropy with label smoothing 0.1, gradients by numpy.

    The rate of a batch of b rows is rate * b * heads; the published clipping at norm 1 is there, and changes nothing.
    """

    def values(case):
        learned = history(case, "dkvb", tuple((SIZES | {"rate": rate}).items()))
        stored, found = np.zeros((SIZES["heads"] * SIZES["keys"], 0)), []
        for number, classes in enumerate(case.classes):
            train = case.stream.task(number).train
            stored = np.concatenate([stored, np.zeros((len(stored), len(classes)))], 1)
            for batch in case.batches(number):
                x = train.features[batch.rows, batch.views].astype(np.float64)
                fetched, size = codes(case, learned[0].state, x), len(batch.rows)
                wanted = np.full((size, classes.stop), 0.1 / classes.stop)
                wanted[np.arange(size), train.labels[batch.rows]] += 0.9
                error = (softmax(stored[fetched].mean(1)) - wanted) / size / SIZES["heads"]
                gradient = np.zeros_like(stored)
                for row in range(size):
                    for key in fetched[row]:
                        gradient[key] += error[row]
                clipped = gradient * min(1.0, 1.0 / (np.linalg.norm(gradient) + 1e-6))
                stored -= rate * size * SIZES["heads"] * clipped
            found.append(stored.copy())
        return found

    return values


def our_values(rate):
    options = tuple((SIZES | {"rate": rate}).items())
    return lambda case: [learned.state["values"] for learned in history(case, "dkvb", options)]


# LDA


def lda(case):
    """Equal priors; the share e of the mean variance t in (1 - e) S + e t I that makes left-out rows likeliest.

    A row at distance d from its mean, left out of f degrees of freedom, has the Gaussian log-likelihood
    -1/2 (log |G - b x x^T| + x^T (G - b x x^T)^-1 x), G = f b S + e t I, b = (1 - e) / (f - 1); x x^T has the mean S, and
    tr(S G^-1) stands for each row's own distance. Class means are shortened towards their mean m, each by its rows.
    """
    found = []
    for number, classes in enumerate(case.classes):
        x, labels = np.concatenate(case.x[: number + 1]), np.concatenate(case.labels[: number + 1])
        means = class_means(x, labels, range(classes.stop))
        freedom = len(x) - classes.stop
        S = (x - means[labels]).T @ (x - means[labels]) / freedom
        t, identity = np.trace(S) / len(S), np.eye(len(S))
        likelihood = []
        for e in SHARES:
            b = (1 - e) / (freedom - 1)
            G = freedom * b * S + e * t * identity
            distance = np.trace(S @ np.linalg.inv(G))
            # |G - b x x^T| = |G| (1 - b x^T G^-1 x), and the inverse's form is r / (1 - b r) with r = x^T G^-1 x
            determinant = np.linalg.slogdet(G)[1] + np.log(1 - b * distance)
            likelihood.append(-0.5 * (determinant + distance / (1 - b * distance)))
        e = SHARES[int(np.argmax(likelihood))]
        centre = means.mean(0)
        away = means - centre
        weights = away @ np.linalg.inv((1 - e) * S + e * t * identity)
        lengths = (weights * away).sum(1)
        # Class means vary by v about m, their estimates by s / n_c more; the posterior means are v / (v + s / n_c) as long.
        few, noise = np.array([1 / np.sum(labels == c) for c in range(classes.stop)]), 1.0
        if len(few) > 2 and np.ptp(few) > 0:
            line = linregress(few, lengths / len(S))
            noise = max(1.0, line.slope - line.stderr)
        between = max(0.0, lengths.sum() / (classes.stop - 1) / len(S) - noise * few.mean())
        relative = 1 / (between + noise * few)
        rows = case.asked(number + 1).astype(np.float64) - centre
        found.append(relative / relative.mean() * (rows @ weights.T - 0.5 * between * relative * lengths))
    return found


SHARES = [10 ** (step / 10) for step in range(-40, 1)]


ONLINE = {"k": 5, "tau": 0.3, "beta": 0.25, "batch_size": 4}
COMPARED = {
    "adanpc": [
        Comparison(adanpc(100), Scores("adanpc"), classes=True),
        Comparison(adanpc(5), Scores("adanpc", {"k": 5}), classes=True),
        Comparison(adanpc(5, 0.3, 0.25, 4), Scores("adanpc", ONLINE), classes=True),
    ],
    "dkvb": [
        Comparison(from_state(dkvb, "dkvb", **SIZES), Scores("dkvb", SIZES), classes=False),
        Comparison(dkvb_keys, our_keys, rtol=1e-4, atol=1e-5),
        Comparison(dkvb_values(0.1), our_values(0.1), rtol=1e-4, atol=1e-5),
    ],
    "lda": [Comparison(lda, Scores("lda"), classes=True, rtol=1e-6, atol=1e-6)],
}
