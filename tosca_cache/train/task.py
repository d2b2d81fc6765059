"""One task from its first step to its prototypes: the unit that both `tosca train` and `tosca conformance` run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.luca.module import adapt
from tosca_cache.luca.parameters import Head, Parameters
from tosca_cache.train.batches import Batch
from tosca_cache.train.loop import EpochDone, fit
from tosca_cache.train.settings import Settings


class Learned(NamedTuple):
    """losses: before each step, [steps, M]; head: as trained, before its rows became prototypes."""

    losses: NDArray[np.float64]
    head: Head


def learn_task(
    parameters: Parameters,
    features: Tensor,
    labels: Tensor,
    classes: range,
    batches: Iterable[Batch],
    settings: Settings,
    *,
    on_epoch: EpochDone | None = None,
) -> Learned:
    """Trains module and head on a task's rows, then replaces the head rows of its classes by prototypes.

    Arguments:
        parameters: module and grown head as they start; they are changed in place.
        features: [n, views, d]; view 0 is the clean one.
        labels: learned labels, [n], all within `classes`, every class at least once.
        batches, settings, on_epoch: see `fit`.
    """
    losses = fit(parameters, features, labels, batches, settings, on_epoch=on_epoch)
    trained = Head(*(t.detach().clone() for t in parameters.head))
    _set_prototypes(parameters, features[:, 0], labels, classes, settings.flow)
    return Learned(losses, trained)


@torch.no_grad()
def _set_prototypes(parameters: Parameters, clean: Tensor, labels: Tensor, classes: range, flow: str) -> None:
    """W_c = mean over class c of LuCA(clean train view), for the task's own classes only."""
    adapted = adapt(parameters.luca, clean, flow)  # [M, n, d]
    for c in classes:
        parameters.head.weight[:, c] = adapted[:, labels == c].mean(1)
