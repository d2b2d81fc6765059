"""A model as one graph of float32 products: normalisation, backbone, learner and calibration as a torch module.

What a learner solves, divides and sums is folded into weights in float64 first. A softmax follows, so that a number may be
added to all scores of a row: weights are taken relative to their mean over the classes and features relative to a centre,
which keeps float32 from drowning small differences between the scores in their common part.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from torch import Tensor, nn

from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import FLOOR, unit
from tosca_cache.closed_form.pool import standardised
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.errors import UsageError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.luca.module import adapt, entropy_and_prediction, normalise
from tosca_cache.luca.parameters import Luca
from tosca_cache.model.classifier import Model

PIXELS, FEATURES, PROBABILITIES = "pixels", "features", "probabilities"
EXPORTED = ("lda", "nmc", "pool", "ranpac", "simplecil", "slda", "tosca")  # learners


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

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the module that is surest, [n, C]."""
        luca = Luca(*(getattr(self, name) for name in Luca._fields))
        logits = self.sigma * (normalise(adapt(luca, x, self.flow)) @ self.directions.T)  # [T, n, C]
        chosen = entropy_and_prediction(logits)[0].argmin(0)  # [n]
        return logits.gather(0, chosen.view(1, -1, 1).expand(1, -1, logits.shape[2])).squeeze(0)


def head_of(learner: Any, dim: int) -> nn.Module:
    """The graph of a trained learner, features [n, d] to scores [n, L]; raises `UsageError` for one without."""
    learner.finalize()
    if learner.name == "tosca" and learner.router_name == "sample":
        luca = Luca(*(torch.cat(parts) for parts in zip(*learner.bank.modules, strict=True)))
        return Routed(luca, learner.bank.flow, *learner.bank.directions)
    if learner.name == "pool":
        temperatures, pooled = learner.pool.temperatures(learner.tasks), learner.pool.classifiers
        scales = {name: 1.0 if tau is None else 1 / tau for name, tau in temperatures.items()}
        parts = [_scores(pooled[name].classifier, dim, scale) for name, scale in scales.items()]
        return Pooled(parts, standardise=None in temperatures.values())
    if learner.name == "nmc":
        means = learner.classifier.means
        return Scores(2 * means.T, bias=-means.square().sum(1), centre=means.mean(0), to_unit=True)
    if learner.name not in EXPORTED or learner.name == "tosca":
        router = f" with the router {learner.router_name}" if hasattr(learner, "router_name") else ""
        problem = f"a model of the learner {learner.name}{router} cannot be exported"
        remedy = f"those that can be are {', '.join(EXPORTED)} (tosca with router=sample)"
        raise UsageError(problem, where=learner.name, remedy=remedy)
    return _scores(learner.classifier, dim)


def _scores(classifier: Any, dim: int, scale: float = 1.0) -> Scores:
    """A closed form of linear scores, times `scale`: LDA, ridge on random features, or the cosine to class means."""
    if isinstance(classifier, Lda):
        weights, bias = (scale * tensor.cpu() for tensor in classifier.weights())
        return Scores(weights, bias=bias, centre=(classifier.sums.sum(0) / classifier.counts.sum()).cpu())
    if isinstance(classifier, RandomRidge):
        return Scores(scale * classifier.weights().double(), projection=classifier.features.projection(dim))
    means = unit(classifier.means)
    return Scores(scale * means.T, centre=means.mean(0), to_unit=True)


class Graph(nn.Module):
    """Pixels [n, 3, S, S] in 0..1, or features [n, d], to calibrated probabilities [n, C]; on the CPU.

    What it gives is `Model.probabilities`: class numbers become classes, and the held-out temperature and doubt are
    applied. All is float32 but the backbone, which computes in its own precision.
    """

    mean: Tensor
    std: Tensor
    columns: Tensor

    def __init__(self, model: Model, backbone: Backbone | None = None) -> None:
        super().__init__()
        card = model.card
        self.head = head_of(model.learner, card.dim)
        self.temperature, self.doubt = card.held_out.temperature, card.held_out.doubt
        most = max(len(one.indices) for one in card.classes)
        columns = [(one.indices * most)[:most] for one in card.classes]  # the largest of several stays the largest
        self.register_buffer("columns", torch.tensor(columns))
        self.backbone: nn.Module | None = None
        if backbone is not None and card.backbone is not None:
            transform = backbone.transform(card.backbone.normalise)
            computes = backbone.forward(transform)
            same = backbone.device.type == "cpu"
            self.backbone = computes.model if same else copy.deepcopy(computes.model).cpu()
            self.dtype = computes.dtype
            self.register_buffer("mean", torch.tensor(transform.mean).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(transform.std).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of the classes, [n, C]."""
        if self.backbone is not None:
            x = self.backbone(((x - self.mean) / self.std).to(self.dtype)).float()
        scores = self.head(x)[:, self.columns].amax(2)
        softmax = torch.softmax(scores / self.temperature, 1)
        return (1 - self.doubt) * softmax + self.doubt / len(self.columns)


def metadata(model: Model, backbone: Backbone | None) -> dict[str, str]:
    """What a graph says of itself: texts, of which `classes` and `transform` (mean and std are in the graph) are JSON."""
    card, said = model.card, {}
    if backbone is not None and card.backbone is not None:
        transform = backbone.transform(card.backbone.normalise)
        size = transform.image_size
        said["input"] = (
            f"{PIXELS}: float32 [n, 3, {size}, {size}], RGB in 0..1, after turning upright, resizing the shorter side to "
            f"{transform.resize} ({transform.interpolation}, antialiased) and cropping the middle {size} x {size}"
        )
        what = {name: getattr(transform, name) for name in ("resize", "interpolation", "image_size", "mean", "std")}
        said["transform"] = json.dumps(what | {"decoding": card.backbone.decoding})
    else:
        said["input"] = f"{FEATURES}: float32 [n, {card.dim}], as the model's backbone gives them"
    return said | {
        "output": f"{PROBABILITIES}: float32 [n, {len(card.classes)}], in the order of classes",
        "classes": json.dumps(model.class_names),
        "learner": card.learner.method,
        "model": card.digest,
    }
