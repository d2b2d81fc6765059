"""Learners of LuCA modules: what they answer, from their modules, as published. numpy, float64, row by row.

MOS: LAMDA-PILOT, models/mos.py (`_eval_cnn`, `replace_fc`) and utils/inc_net.py (`MOSNet`), commit 2647455.
APER: LAMDA-PILOT, models/aper_adapter.py and utils/inc_net.py (`MultiBranchCosineIncrementalNet`), commit 2647455.
TOSCA: reference/tosca.md, "Inference after task t". PROTEUS: arXiv 2603.13235, from the equations of its retrieval.
"""

import numpy as np
import torch
from reference.closed_form_plain import softmax, unit
from reference.official import Comparison, Scores, from_state
from reference.official_training import adapt
from scipy.stats import norm


def luca(state, t, x, prefix="module."):
    """LuCA module t of stacked ones at rows [n, d] (reference/tosca.md, "The module")."""
    names = [name for name in state if name.startswith(prefix)]
    module = {name.removeprefix(prefix): torch.from_numpy(state[name][t]) for name in names}
    return adapt(module, torch.from_numpy(x)).numpy()


def module_logits(case, number, state):
    """Logits of every module so far, [T, n, C]."""
    x, head = case.asked(number + 1).astype(np.float64), unit(state["prototypes"])
    return np.stack([state["sigma"] * unit(luca(state, t, x)) @ head.T for t in range(number + 1)])


def class_means(case, number, of):
    """Mean of `of(rows)` over the train rows of each class seen, [C, d]."""
    seen = zip(case.x[: number + 1], case.labels[: number + 1], case.classes, strict=False)
    return np.stack([of(x[labels == c]).mean(0) for x, labels, classes in seen for c in classes])


# MOS


def mos(case, number, state):
    """Self-refined retrieval, then both branches.

    From the class that is nearest among the means under module 0, the module of its task predicts; where that leads to
    another task, its module predicts next, four at most. softmax(logits of the last) + softmax(cosines / (1 / tasks)).
    """
    logits, x = module_logits(case, number, state), case.asked(number + 1).astype(np.float64)
    task_of = np.concatenate([[t] * len(classes) for t, classes in enumerate(case.classes)])
    means = class_means(case, number, lambda rows: luca(state, 0, rows))
    first = unit(luca(state, 0, x)) @ unit(means).T
    last = []
    for row in range(len(x)):
        module, asked = task_of[first[row].argmax()], 0
        while True:
            asked += 1
            found = task_of[logits[module, row].argmax()]
            if asked >= 4 or found == module:
                break
            module = found
        last.append(logits[module, row])
    return softmax(np.stack(last)) + softmax(first / (1 / (number + 1)))


def mos_statistics(case, number, state):
    """Mean and covariance of each class of the task under its own module: torch.cov has divisor n - 1."""
    found = []
    for c in case.classes[number]:
        rows = luca(state, number, case.x[number][case.labels[number] == c])
        covariance = np.cov(rows, rowvar=False) if len(rows) > 1 else np.zeros((rows.shape[1],) * 2)
        found.append(np.concatenate([rows.mean(0)[None], covariance]))
    return np.stack(found)


def our_statistics(case, number, state):
    factors = [state[f"gaussians.factors.{c}"] for c in case.classes[number]]
    means = state["gaussians.means"][case.classes[number].start :]
    return np.stack([np.concatenate([mean[None], F.T @ F]) for mean, F in zip(means, factors, strict=True)])


# APER


def aper(adapted):
    """Cosines of concat[x, adapted x] with the class means of it; `adapted` is of rows and the state."""

    def scores(case, number, state):
        def joined(x):
            return np.concatenate([x, adapted(x, state)], 1)

        return unit(joined(case.asked(number + 1).astype(np.float64))) @ unit(class_means(case, number, joined)).T

    return scores


def through_film(x, state):
    return state["module.gamma"] * x + state["module.beta"]


def through_luca(x, state):
    return luca(state, 0, x)


# TOSCA


def by_entropy(case, number, state):
    """Logits of the module of least entropy, row by row."""
    logits = module_logits(case, number, state)
    p = softmax(logits)
    entropy = -(p * np.log(p + 1e-9)).sum(-1)
    return logits[entropy.argmin(0), np.arange(logits.shape[1])]


def tosca_prototypes(case, number, state):
    """Of the task's own classes: means of the adapted clean train rows."""
    x, labels = case.x[number], case.labels[number]
    return np.stack([luca(state, number, x[labels == c]).mean(0) for c in case.classes[number]])


def our_prototypes(case, number, state):
    return state["prototypes"][case.classes[number].start :]


def by_truth(case, number, state):
    """Logits of the module of the true task: test rows lie task by task."""
    logits = module_logits(case, number, state)
    tasks = np.concatenate([[t] * len(case.stream.test(t).labels) for t in range(number + 1)])
    return logits[tasks, np.arange(len(tasks))]


# PROTEUS


def by_density(case, number, state):
    """Logits of the module t under which log GMM_t(h_t(x)), in standard deviations of the task's own rows, is largest."""
    logits, densities = module_logits(case, number, state), []
    for t in range(number + 1):
        s = {name: state[f"router.{t}.{name}"] for name in SIGNATURE}
        x = unit(luca(state, t, case.asked(number + 1).astype(np.float64)))
        own = unit(luca(state, t, case.x[t]))
        level, spread = mixture(own, s).mean(), max(mixture(own, s).std(), 1.0)
        densities.append((mixture(x, s) - level) / spread)
    return logits[np.argmax(densities, 0), np.arange(logits.shape[1])]


SIGNATURE = ("mean", "basis", "scale", "weights", "means", "variances", "rest")


def mixture(x, s):
    """Log-density of Gaussians within the directions `basis` (of unit length, of standard deviation `scale`), one variance
    in all directions beside them."""
    r = s["basis"].shape[1]
    beside = np.linalg.svd(s["basis"])[0][:, r:]
    z, rest = (x - s["mean"]) @ s["basis"] / s["scale"], (x - s["mean"]) @ beside
    found = norm.logpdf(rest, scale=np.sqrt(s["rest"])).sum(1)
    if not r:
        return found
    each = [
        weight * np.exp(norm.logpdf(z, mean, np.sqrt(variance)).sum(1))
        for weight, mean, variance in zip(s["weights"], s["means"], s["variances"], strict=True)
    ]
    return found + np.log(np.sum(each, 0)) - r * np.log(s["scale"])


def held(plain, name, **options):
    """Scores of a learner, compared with what the published formulas make of the modules it has learned."""
    return Comparison(from_state(plain, name, **options), Scores(name, options), classes=True, rtol=1e-3, atol=1e-4)


def parts(plain, ours, name, **options):
    """A part of what a learner has learned, compared with the published formula."""
    both = (from_state(plain, name, **options), from_state(ours, name, **options))
    return Comparison(*both, rtol=1e-3, atol=1e-4)


COMPARED = {
    "mos": [held(mos, "mos"), parts(mos_statistics, our_statistics, "mos")],
    "aper-film": [held(aper(through_film), "aper-film")],
    "aper-luca": [held(aper(through_luca), "aper-luca")],
    "tosca": [held(by_entropy, "tosca"), parts(tosca_prototypes, our_prototypes, "tosca")],
    "oracle-luca": [held(by_truth, "oracle-luca")],
    "proteus": [held(by_density, "proteus")],
}
