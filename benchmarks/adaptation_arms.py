"""The ways of adapting cached features that `adaptation_study.py` compares with classifiers in closed form.

Each takes the tasks of a stream in turn and says, after the last one, what it makes of the test rows: scores [n, C].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import NearestMean
from tosca_cache.closed_form.ridge import stratified_folds
from tosca_cache.closed_form.shared import TEMPERATURES
from tosca_cache.config import Settings
from tosca_cache.luca.module import adapt
from tosca_cache.luca.parameters import Luca, LucaShape, initial_luca
from tosca_cache.seeds import derive_seed
from tosca_cache.tasks import Task, TaskStream
from tosca_cache.train.batches import epoch_batches
from tosca_cache.train.gradient import Group, Step, cross_entropy, fit

# Of residual and replayed modules. The head starts at zero: before the first step they change nothing.
TRAINING = Settings(optimizer="adam", lr=0.01, epochs=5, batch_size=64, l1=0.0)
LEAST_STEPS = 80  # few rows are seen in more epochs
FOLDS = 3
SAMPLES = 3000  # Gaussian rows in all, between 8 and 64 a class

Scorer = Callable[[Tensor], Tensor]


def rows_of(task: Task) -> tuple[Tensor, Tensor]:
    """Clean train rows [n, d] in float64 and class indices [n]."""
    return torch.from_numpy(task.train.features[:, 0]).double(), torch.from_numpy(task.train.labels)


def trained_module(x: Tensor, offset: Tensor, labels: Tensor, training: Settings, *, seed: int, number: int) -> Scorer:
    """A LuCA module and a linear head, trained by cross-entropy of offset + logits; gives the logits of other rows.

    Arguments:
        x: features, [n, d]. offset: log-probabilities that logits are added to, [n, K]. labels: in 0 ... K - 1, [n].
    """
    (n, d), K = x.shape, offset.shape[1]
    training = replace(training, epochs=max(training.epochs, -(-LEAST_STEPS // -(-n // training.batch_size))))
    luca = Luca(*(t.clone() for t in initial_luca(LucaShape.from_ratios(d, 16, 16), seed, number + 1)))
    head, both = torch.zeros(1, K, d), torch.cat([x, offset], 1).float()

    def logits(rows: Tensor) -> Tensor:
        return adapt(luca, rows, "tosca") @ head.transpose(1, 2) / sqrt(d)

    def steps() -> Iterator[Step]:
        size, epochs = training.batch_size, training.epochs
        for batch in epoch_batches(n, 0, epochs=epochs, batch_size=size, seed=seed, task=number):
            rows = torch.from_numpy(batch.rows)
            weights = torch.full((1, len(rows)), 1 / len(rows))
            yield Step(batch.epoch, both[rows].unsqueeze(0), labels[rows].unsqueeze(0), weights)

    def loss(step: Step) -> Tensor:
        return cross_entropy(step.x[..., d:] + logits(step.x[..., :d]), step)

    fit([Group([*luca, head])], training, steps(), loss)
    return lambda rows: logits(rows.float())[0].double()


def residual_scorers(stream: TaskStream, training: Settings) -> list[Scorer | None]:
    """A module a task, trained on what linear discriminant analysis leaves over of the task's own classes.

    Its rows are predicted by folds: by an LDA of all earlier tasks and the task's other folds, at the temperature of
    greatest likelihood. None for a task with a class of one row, which has no folds.
    """
    lda, found = Lda(), list[Scorer | None]()
    for task in stream:
        (x, labels), before = rows_of(task), copy(lda)
        lda.observe(x, labels, task.classes.stop)
        own = labels - task.classes.start
        folds = min(FOLDS, int(own.bincount().min()))
        if folds < 2 or len(task.classes) < 2:
            found.append(None)
            continue
        scores, fold = x.new_zeros(len(x), len(task.classes)), stratified_folds(labels, folds)
        for k in range(folds):
            trial, held = copy(before), fold == k
            trial.shrinkage = lda.chosen_shrinkage()
            trial.observe(x[~held], labels[~held], task.classes.stop)
            scores[held] = trial.scores(x[held])[:, task.classes.start :]
        offset = torch.log_softmax(scores / likeliest_temperature(scores, own), 1)
        found.append(trained_module(x, offset, own, training, seed=stream.protocol.seed, number=task.number))
    return found


def likeliest_temperature(scores: Tensor, labels: Tensor) -> float:
    """The temperature of greatest likelihood of scores [n, K] and labels [n]."""
    return min(TEMPERATURES, key=lambda tau: float(torch.nn.functional.cross_entropy(scores / tau, labels)))


def with_residuals(log_probs: Tensor, scorers: list[Scorer | None], stream: TaskStream, x: Tensor, w: float) -> Tensor:
    """Log-probabilities [n, C] with those of each task's classes shared out anew among them; tasks keep their sums."""
    parts = []
    for number, scorer in enumerate(scorers):
        own = log_probs[:, stream.classes(number).start : stream.classes(number).stop]
        if scorer is not None:
            own = own.logsumexp(1, keepdim=True) + torch.log_softmax(own + w * scorer(x), 1)
        parts.append(own)
    return torch.cat(parts, 1)


def replayed_scorer(stream: TaskStream, training: Settings) -> Scorer:
    """One module over all classes, trained on the last task's rows and on Gaussian samples of all earlier classes.

    Kept of earlier tasks: class means and the covariance that all classes share, shrunk as LDA chooses.
    """
    lda, seed = Lda(), stream.protocol.seed
    for task in stream:
        x, labels = rows_of(task)
        lda.observe(x, labels, task.classes.stop)
    means, covariance = lda.gaussian()
    C, d = means.shape
    share = lda.chosen_shrinkage()
    ridge = max(share * float(covariance.diagonal().mean()), 1e-8 * float(means.square().mean()))
    root = torch.linalg.cholesky((1 - share) * covariance + ridge * torch.eye(d, dtype=torch.float64))
    generator = torch.Generator().manual_seed(derive_seed(seed, "replay"))
    count, earlier = min(max(SAMPLES // C, 8), 64), task.classes.start
    noise = torch.randn(earlier * count, d, generator=generator, dtype=torch.float64) @ root.T
    samples = means[:earlier].repeat_interleave(count, 0) + noise
    kept = fair_share(labels, count, seed)
    everything = torch.cat([samples, x[kept]])
    targets = torch.cat([torch.arange(earlier).repeat_interleave(count), labels[kept]])
    mean, std = everything.mean(0), everything.std(0).clamp_min(1e-6)
    nothing = everything.new_zeros(len(everything), C)
    scorer = trained_module((everything - mean) / std, nothing, targets, training, seed=seed, number=len(stream))
    return lambda rows: torch.log_softmax(scorer((rows - mean) / std), 1)


def fair_share(labels: Tensor, count: int, seed: int) -> Tensor:
    """Positions of at most `count` rows of each class, so that no class outweighs those that are sampled."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(derive_seed(seed, "fair share")))
    return torch.cat([order[labels[order] == c][:count] for c in labels.unique()])


def first_session(stream: TaskStream, luca: Luca, flow: str, x: Tensor) -> dict[str, Tensor]:
    """The first task's module frozen, features beside their adapted form: class means (APER) and LDA of both."""

    def joined(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([rows, adapt(luca, rows.float(), flow)[0].double()], 1)

    means, lda = NearestMean(), Lda()
    for task in stream:
        rows, labels = rows_of(task)
        means.observe(joined(rows), labels, task.classes.stop)
        lda.observe(joined(rows), labels, task.classes.stop)
    both = joined(x)
    return {"means": means.scores(both), "lda": torch.log_softmax(lda.scores(both), 1)}


def accuracy(scores: Tensor, stream: TaskStream) -> float:
    """Percent of all test rows, in the order of tasks, whose class (in whichever domain) has the largest score."""
    labels = np.concatenate([stream.test_labels(number) for number in range(len(stream))])
    return 100 * float((stream.class_of[scores.argmax(1).numpy()] == stream.class_of[labels]).mean())
