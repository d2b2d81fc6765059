"""One task from its first step to its prototypes, for all models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.devices import on_cores
from tosca_cache.luca.module import adapt
from tosca_cache.luca.parameters import Head, Luca, Parameters
from tosca_cache.train.engines import Engine
from tosca_cache.train.loop import EpochDone
from tosca_cache.train.stack import Lane, Member


class Learned(NamedTuple):
    """losses: before each step, [steps] for each member; head: as trained, before its rows became prototypes."""

    losses: list[NDArray[np.float64]]
    head: Head


def learn_task(
    parameters: Parameters,
    lanes: Sequence[Lane],
    members: Sequence[Member],
    classes: range,
    engine: Engine,
    *,
    on_epoch: EpochDone | None = None,
) -> Learned:
    """Trains modules and heads on the rows of their lanes, then replaces the head rows of `classes` by prototypes.

    Arguments:
        parameters: modules and grown heads as they start; they are changed in place.
        lanes: their labels are all within `classes`, every class at least once.
    """
    losses = engine.fit(parameters, lanes, members, on_epoch=on_epoch)
    trained = Head(*(t.detach().clone() for t in parameters.head))
    on_cores(
        lambda m: _set_prototypes(parameters, m, lanes[members[m].lane], members[m], classes),
        range(len(members)),
        engine.threads,
    )
    return Learned(losses, trained)


@torch.no_grad()
def _set_prototypes(parameters: Parameters, m: int, lane: Lane, member: Member, classes: range) -> None:
    """W_c = mean over class c of LuCA(clean train view), for the task's own classes only, of model m.

    Model by model, so that memory does not grow with their number and the numbers do not depend on it.
    """
    luca = Luca(*(t[m : m + 1] for t in parameters.luca))
    adapted = adapt(luca, lane.features[:, 0], member.settings.flow)[0]  # [n, d]
    for c in classes:
        parameters.head.weight[m, c] = adapted[lane.labels == c].mean(0)
