"""Learners as graphs: what a trained learner makes of features, as a torch module of float32 products alone.

What is solved, divided and summed is folded into weights in float64 first. A softmax follows, so that a number may be added
to all scores of a row: weights are taken relative to their mean over the classes and features relative to a centre, which
keeps float32 from drowning small differences between the scores in their common part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import FLOOR, unit
from tosca_cache.closed_form.pool import standardised
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.errors import UsageError
from tosca_cache.learners.base import Learner
from tosca_cache.luca.module import adapt, entropy_and_prediction, normalise
from tosca_cache.luca.parameters import Luca


class Scores(nn.Module):
    """Scores z W + b for features x [n, d], [n, C], with z = x - centre, or x / |x| - centre, or ReLU(x P).

    Arguments:
        weights: W [k, C]. bias: b [C]. centre: [k], zeros by default. projection: P [d, k]. to_unit: z is of x / |x|.
    """

    weights: Tensor
    bias: Tensor
    centre: Tensor
    projection: Tensor

    def __init__(
        self,
        weights: Tensor,
        *,
        bias: Tensor | None = None,
        centre: Tensor | None = None,
        projection: Tensor | None = None,
        to_unit: bool = False,
    ) -> None:
        super().__init__()
        weights = weights.double().cpu()
        bias = weights.new_zeros(weights.shape[1]) if bias is None else bias.double().cpu()
        weights, bias = weights - weights.mean(1, keepdim=True), bias - bias.mean()
        centre = weights.new_zeros(len(weights)) if centre is None else centre.float().double().cpu()
        self.register_buffer("weights", weights.float())
        self.register_buffer("bias", (bias + centre @ weights).float())
        self.register_buffer("centre", centre.float())
        self.register_buffer("projection", torch.empty(0) if projection is None else projection.float().cpu())
        self.to_unit, self.random = to_unit, projection is not None

    def forward(self, x: Tensor) -> Tensor:
        """Scores of all class numbers, [n, C], up to a number for each row."""
        if self.to_unit:
            x = x / x.square().sum(1, keepdim=True).sqrt().clamp_min(FLOOR)
        z = torch.relu(x @ self.projection) if self.random else x - self.centre
        return z @ self.weights + self.bias


class Pooled(nn.Module):
    """The sum of several classifiers' scores [n, C], which their temperatures are part of; standardised if asked for."""

    def __init__(self, parts: list[Scores], *, standardise: bool) -> None:
        super().__init__()
        self.parts, self.standardise = nn.ModuleList(parts), standardise

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities, [n, C], up to a number for each row."""
        return torch.stack([standardised(s(x)) if self.standardise else s(x) for s in self.parts]).sum(0)


class Routed(nn.Module):
    """LuCA modules under one cosine head, each sample answered by the module of least entropy.

    Arguments:
        luca: of T modules, [T, ...]. directions: rows of the head at unit length, [C, d]. sigma: its scale, [1].
    """

    directions: Tensor
    sigma: Tensor

    def __init__(self, luca: Luca, flow: str, directions: Tensor, sigma: Tensor) -> None:
        super().__init__()
        self.flow = flow
        for name, tensor in {**luca._asdict(), "directions": directions, "sigma": sigma}.items():
            self.register_buffer(name, tensor.detach().float().cpu())

    def logits(self, x: Tensor) -> Tensor:
        """Logits of every module for features [n, d], [T, n, C]."""
        luca = Luca(*(getattr(self, name) for name in Luca._fields))
        return self.sigma * (normalise(adapt(luca, x, self.flow)) @ self.directions.T)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the module that is surest, [n, C]."""
        logits = self.logits(x)
        chosen = entropy_and_prediction(logits)[0].argmin(0)  # [n]
        return logits.gather(0, chosen.view(1, -1, 1).expand(1, -1, logits.shape[2])).squeeze(0)


def head_of(learner: Learner, dim: int) -> nn.Module:
    """The graph of a trained learner, features [n, d] to scores [n, L]; raises `UsageError` for one without."""
    learner.finalize()
    make = _HEADS.get(learner.name)
    if make is None:
        raise _refused(f"a model with the learner {learner.name} cannot be exported", learner)
    return make(learner, dim).eval()


def _refused(problem: str, learner: Learner) -> UsageError:
    names = ", ".join(sorted(_HEADS))
    return UsageError(problem, where=learner.name, remedy=f"those that can be are {names} (tosca with router=sample)")


def _nmc(learner: Any, dim: int) -> nn.Module:
    means = learner.classifier.means
    return Scores(2 * means.T, bias=-means.square().sum(1), centre=means.mean(0), to_unit=True)


def _simplecil(learner: Any, dim: int) -> nn.Module:
    return _cosine(learner.classifier)


def _linear(learner: Any, dim: int) -> nn.Module:
    return _lda(learner.classifier)


def _ranpac(learner: Any, dim: int) -> nn.Module:
    return _ridge(learner.classifier, dim)


def _pool(learner: Any, dim: int) -> nn.Module:
    pool, tasks = learner.pool, learner.tasks
    temperatures, parts = pool.temperatures(tasks), []
    for name, tau in temperatures.items():
        classifier = pool.classifiers[name].classifier
        scale = 1.0 if tau is None else 1 / tau
        if isinstance(classifier, Lda):
            parts.append(_lda(classifier, scale=scale))
        elif isinstance(classifier, RandomRidge):
            parts.append(_ridge(classifier, dim, scale=scale))
        else:
            parts.append(_cosine(classifier, scale=scale))
    return Pooled(parts, standardise=None in temperatures.values())


def _tosca(learner: Any, dim: int) -> nn.Module:
    if learner.router_name != "sample":
        raise _refused(f"a model with the router {learner.router_name} cannot be exported", learner)
    bank = learner.bank
    luca = Luca(*(torch.cat(parts) for parts in zip(*bank.modules, strict=True)))
    return Routed(luca, bank.flow, *bank.directions)


_HEADS: dict[str, Callable[[Any, int], nn.Module]] = {
    "nmc": _nmc,
    "simplecil": _simplecil,
    "lda": _linear,
    "slda": _linear,
    "ranpac": _ranpac,
    "pool": _pool,
    "tosca": _tosca,
}


def _cosine(classifier: Any, scale: float = 1.0) -> Scores:
    means = unit(classifier.means)
    return Scores(scale * means.T, centre=means.mean(0), to_unit=True)


def _lda(classifier: Lda, scale: float = 1.0) -> Scores:
    weights, bias = (scale * tensor.cpu() for tensor in classifier.weights())
    return Scores(weights, bias=bias, centre=(classifier.sums.sum(0) / classifier.counts.sum()).cpu())


def _ridge(classifier: RandomRidge, dim: int, *, scale: float = 1.0) -> Scores:
    return Scores(scale * classifier.weights().double(), projection=classifier.features.projection(dim))
