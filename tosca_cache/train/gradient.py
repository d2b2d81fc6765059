"""Gradient training with any loss: M models side by side, by PyTorch's own optimizers.

Models that differ in their seed are the leading axis of every tensor. The optimizers work element by element and the
losses of the models are summed, so that each model gets what it gets alone. Only models that take the same number of
steps an epoch stand side by side: then an epoch is the same for all of them, and nobody waits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.devices import one_thread
from tosca_cache.tasks import Task
from tosca_cache.train.stack import Lane, Member, Steps

Tensors = dict[str, Tensor]  # named tensors, each [M, ...]


class Step(NamedTuple):
    """One minibatch of every model.

    epoch: counted from 0. x: features, [M, n, d]. targets: [M, n]. weights: 1 / rows of the batch, or 0 where a shorter
    batch is filled up, [M, n].
    """

    epoch: int
    x: Tensor
    targets: Tensor
    weights: Tensor


class Group(NamedTuple):
    """Tensors that are trained in the epochs for which `trains` is true; in the others they stay as they are."""

    tensors: Sequence[Tensor]
    trains: Callable[[int], bool] = lambda epoch: True


Loss = Callable[[Step], Tensor]  # the loss of every model, [M]


def side_by_side(tasks: Sequence[Task], settings: Settings) -> list[list[int]]:
    """Positions of tasks that take the same number of steps an epoch, together."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for position, task in enumerate(tasks):
        found[settings.steps([len(task.train)])].append(position)
    return list(found.values())


def task_steps(
    tasks: Sequence[Task], seeds: Sequence[int], settings: Settings, device: torch.device, *, first_label: int = 0
) -> Iterator[Step]:
    """All steps of one task of every model, in float32: its rows, views and order follow from its seed.

    Arguments:
        first_label: what is taken from the labels; the first class of the task, for a loss over its own classes.
    """
    pairs = zip(tasks, seeds, strict=True)
    lanes = [Lane.of(task, seed, settings, device, first_label=first_label) for task, seed in pairs]
    steps = Steps(lanes, [Member(settings, lane) for lane in range(len(lanes))])
    for k, size in enumerate(steps.sizes):
        x, targets, weights = steps.minibatch(k, size)
        yield Step(steps.epochs[k], x if x.dim() == 3 else x.unsqueeze(0), targets, weights)


def make_optimizer(tensors: Sequence[Tensor], settings: Settings) -> torch.optim.Optimizer:
    """The optimizer that settings name, over tensors; PyTorch's defaults for all that they do not name."""
    lr, decay = settings.lr, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(tensors, lr, momentum=settings.momentum, weight_decay=decay)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(tensors, lr, weight_decay=decay)


@one_thread()
def fit(
    groups: Sequence[Group],
    settings: Settings,
    steps: Iterable[Step],
    loss: Loss,
    *,
    after: Callable[[Step], None] | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Trains the tensors of all groups, in place, with one fresh optimizer.

    Arguments:
        settings: optimizer and learning rates; the rate changes once an epoch.
        after: called after each step, without gradients.
        on_epoch: called with the number of each epoch that ended.

    Returns:
        The losses before each step, [steps, M].
    """
    optimizer = make_optimizer([tensor for group in groups for tensor in group.tensors], settings)
    losses, epoch = [], -1
    for step in steps:
        if step.epoch != epoch:
            if on_epoch is not None and epoch >= 0:
                on_epoch(epoch)
            epoch = step.epoch
            _begin(groups, optimizer, epoch, settings.learning_rate(epoch))
        optimizer.zero_grad()
        found = loss(step)
        if found.requires_grad:
            found.sum().backward()
            optimizer.step()
        losses.append(found.detach())
        if after is not None:
            with torch.no_grad():
                after(step)
    if on_epoch is not None and epoch >= 0:
        on_epoch(epoch)
    _end(groups)
    return torch.stack(losses).double().cpu().numpy()


def _begin(groups: Sequence[Group], optimizer: torch.optim.Optimizer, epoch: int, rate: float) -> None:
    for group in groups:
        for tensor in group.tensors:
            tensor.requires_grad_(group.trains(epoch))
            tensor.grad = None  # the optimizer passes over tensors without a gradient
    for part in optimizer.param_groups:
        part["lr"] = rate


def _end(groups: Sequence[Group]) -> None:
    for group in groups:
        for tensor in group.tensors:
            tensor.requires_grad_(False)
            tensor.grad = None


def cross_entropy(logits: Tensor, step: Step) -> Tensor:
    """Mean cross-entropy of each model's batch: logits [M, n, C] to [M]."""
    M, n, C = logits.shape
    rows = F.cross_entropy(logits.reshape(M * n, C), step.targets.reshape(M * n), reduction="none")
    return (rows.view(M, n) * step.weights).sum(1)


def stacked(parts: Sequence[Mapping[str, Tensor]], device: torch.device) -> Tensors:
    """Tensors of several models, [1, ...] each, as [M, ...] on a device: copies."""
    return {name: torch.cat([part[name].to(device) for part in parts]).clone() for name in parts[0]}


def of_one(tensors: Mapping[str, Tensor], model: int) -> Tensors:
    """Copies of the tensors of one of M models, [1, ...]."""
    return {name: tensor[model : model + 1].detach().clone() for name, tensor in tensors.items()}
