"""Gaussian-mixture signatures: the task whose own rows are densest where the sample lies.

Signatures are of unit-length features: the raw ones, or those that each task's module adapts (as in the paper). Densities
under different modules are densities of different things; calibrated ones are compared in standard deviations of the
log-density of the task's own train rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, pi
from threading import Lock
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tosca_cache.luca.bank import Bank
from tosca_cache.luca.module import finite, normalise
from tosca_cache.routing.base import ModuleOutputs, Router, register_router
from tosca_cache.tasks import Task

DIRECTIONS = 64  # principal directions of a task within which its clusters are told apart
FLOOR = 1e-3  # of the rows' mean square: the least variance there is
REGULAR = 1e-2  # of the variance within the directions, added to every cluster's
ROUNDS = 100


class Signature(NamedTuple):
    """The density of one task's rows: a mixture of K Gaussians within r directions, one variance in all others.

    mean [d], basis [d, r], scale [1]: z = (x - mean) basis / scale. weights [K], means [K, r], variances [K, r]: of the
    mixture of z. rest [1]: variance of each of the d - r other directions. level, spread [1]: mean and standard deviation
    of the log-density of the rows it was fitted to.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    weights: Tensor
    means: Tensor
    variances: Tensor
    rest: Tensor
    level: Tensor
    spread: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        """Natural logarithm of the density at each row, [n, d] to [n]."""
        d, r = self.basis.shape
        centred = x - self.mean
        z = centred @ self.basis
        outside = (centred.square().sum(1) - z.square().sum(1)).clamp_min(0)
        found = -0.5 * (outside / self.rest + (d - r) * (self.rest * 2 * pi).log())
        if not r:
            return found
        z = z / self.scale
        precise = 1 / self.variances
        square = z.square() @ precise.T - 2 * z @ (self.means * precise).T + (self.means.square() * precise).sum(1)
        each = self.weights.log() - 0.5 * (square + self.variances.log().sum(1) + r * log(2 * pi))
        return found + torch.logsumexp(each, 1) - r * self.scale.log()


def fit_signature(x: Tensor, clusters: int) -> Signature:
    """The signature of rows [n, d], float64.

    The number of clusters is inferred by a Dirichlet-process mixture (diagonal covariances) of at most `clusters`.
    """
    x = finite(x.double())
    mean = x.mean(0)
    centred = x - mean
    values, vectors = _principal(centred)
    variance = values / max(len(x) - 1, 1)
    floor = FLOOR * x.square().mean()
    kept = int((variance[:DIRECTIONS] > floor).sum())
    basis = vectors[:, :kept]
    rest = (variance[kept:].sum() / max(x.shape[1] - kept, 1)).clamp_min(floor)
    scale = variance[:kept].mean().sqrt() if kept else torch.ones((), dtype=x.dtype)
    weights, means, variances = _mixture(centred @ basis / scale, min(clusters, len(x)))
    one = torch.ones(1, dtype=x.dtype)
    found = Signature(mean, basis, scale.view(1), weights, means, variances, rest.view(1), one, one)
    density = found.log_density(x)
    return found._replace(level=density.mean().view(1), spread=density.std(correction=0).clamp_min(1).view(1))


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of C^T C, largest first, and eigenvectors [d, `DIRECTIONS`] of the largest, for rows C [n, d].

    From C C^T where there are fewer rows than columns. Directions without variance are not to be used.
    """
    few = len(centred) < centred.shape[1]
    values, vectors = torch.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)[:, :DIRECTIONS]
    if few:
        vectors = centred.T @ (vectors / values[:DIRECTIONS].sqrt().clamp_min(torch.finfo(values.dtype).tiny))
    return values, vectors


def _mixture(z: Tensor, clusters: int) -> tuple[Tensor, Tensor, Tensor]:
    if not z.shape[1] or len(z) < 2:
        shape = (1, z.shape[1])
        return z.new_ones(1), z.new_zeros(shape), z.new_full(shape, REGULAR)
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import BayesianGaussianMixture

    model = BayesianGaussianMixture(
        n_components=clusters,
        covariance_type="diag",
        weight_concentration_prior_type="dirichlet_process",
        reg_covar=REGULAR,
        max_iter=ROUNDS,
        random_state=0,
    )
    with warnings.catch_warnings():  # after ROUNDS the mixture is good enough to find a task by
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(z.numpy())
    weights = np.maximum(model.weights_, np.finfo(np.float64).tiny)
    return torch.from_numpy(weights), torch.from_numpy(model.means_), torch.from_numpy(model.covariances_)


class ByDensity(Router):
    """argmax over tasks of the log-density of the task's signature. adapted: of what the task's module makes of a row.

    calibrated: in standard deviations from the mean of the task's own train rows.
    """

    stores = "means and variances of up to K clusters in 64 directions, and these directions, [d, 64]"
    cost = "T d 64"
    adapted: ClassVar[bool]
    calibrated: ClassVar[bool]

    def __init__(self) -> None:
        self.signatures: list[Signature] = []
        self.lock = Lock()

    def share_cache(self, cache: dict[str, Any]) -> None:
        """Uses the signatures of the cache: calibrated or not, they are the same."""
        if self.adapted and "same rows" in cache:
            return  # banks differ
        key = f"signatures {'adapted' if self.adapted else 'raw'}"
        self.signatures, self.lock = cache.setdefault(key, (self.signatures, self.lock))

    @torch.no_grad()
    def fit(self, task: Task, bank: Bank) -> None:
        """Adds the signature of a task's clean train rows."""
        with self.lock:
            if task.number < len(self.signatures):
                return  # another router of the cache has added it
            parameters = bank.modules[task.number].norm_weight
            clean = torch.from_numpy(task.train.features[:, 0]).to(parameters.device, parameters.dtype)
            rows = bank.adapted(task.number, clean) if self.adapted else normalise(clean)
            self.signatures.append(fit_signature(rows.cpu(), len(task.classes)))

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The task of greatest density, [n]."""
        rows = None if self.adapted else normalise(outputs.features).cpu().double()
        each = []
        for t in range(len(outputs.task_classes)):
            signature = self.signatures[t]
            x = outputs.lazy.adapted_rows(t).cpu().double() if rows is None else rows
            density = signature.log_density(x)
            each.append((density - signature.level) / signature.spread if self.calibrated else density)
        return torch.stack(each).argmax(0).to(outputs.features.device)

    def state(self) -> dict[str, Tensor]:
        """All signatures."""
        return {f"{t}.{name}": part for t, s in enumerate(self.signatures) for name, part in s._asdict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """All signatures."""
        tasks = len(state) // len(Signature._fields)
        self.signatures = [Signature(*(state[f"{t}.{name}"] for name in Signature._fields)) for t in range(tasks)]


PAPER = "PROTEUS-style signatures (arXiv 2603.13235) on"
for _name, _source, _adapted, _calibrated in (
    ("mixture", f"{PAPER} raw features", False, False),
    ("mixture-calibrated", f"{PAPER} raw features, calibrated", False, True),
    ("mixture-adapted", f"{PAPER} adapted features, calibrated", True, True),
    ("mixture-adapted-uncalibrated", f"{PAPER} adapted features, as in the paper", True, False),
):
    _facts = {"name": _name, "source": _source, "adapted": _adapted, "calibrated": _calibrated}
    register_router(type(_name, (ByDensity,), _facts))
