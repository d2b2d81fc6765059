"""Stage two's inner loop: train the module and the head of one task on cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.devices import one_thread
from tosca_cache.luca.module import adapt, cosine_logits
from tosca_cache.luca.parameters import Parameters
from tosca_cache.train.batches import Batch
from tosca_cache.train.optimizers import make_optimizer
from tosca_cache.train.settings import Settings

EpochDone = Callable[[int], None]


def loss_and_gradients(parameters: Parameters, x: Tensor, labels: Tensor, settings: Settings) -> Tensor:
    """Cross-entropy over all classes seen + l1 * sum |p| over the module, [M]; fills `parameters.grad`.

    Arguments:
        x: features, [n, d] or [M, n, d].
        labels: learned labels, [n].
    """
    logits = cosine_logits(parameters.head, adapt(parameters.luca, x, settings.flow))  # [M, n, C]
    M, n, C = logits.shape
    entropy = F.cross_entropy(logits.reshape(M * n, C), labels.repeat(M), reduction="none").view(M, n).mean(1)
    parameters.gather_gradients(torch.autograd.grad(entropy.sum(), parameters.leaves, allow_unused=True))
    module = parameters.luca_flat
    parameters.grad[:, : module.shape[1]].add_(module.sign(), alpha=settings.l1)
    return entropy.detach() + settings.l1 * torch.linalg.vector_norm(module, 1, dim=1)


@one_thread()
def fit(
    parameters: Parameters,
    features: Tensor,
    labels: Tensor,
    batches: Iterable[Batch],
    settings: Settings,
    *,
    on_epoch: EpochDone | None = None,
) -> NDArray[np.float64]:
    """Runs the given steps on `parameters`, in place, with a fresh optimizer.

    Arguments:
        features: [n, views, d] in the dtype of the parameters.
        labels: learned labels, [n].
        batches: rows and views of every step, in order.
        on_epoch: called with the number of the epoch that ended.

    Returns:
        The loss before each step, [steps, M].
    """
    steps = list(batches)
    if not steps:
        return np.empty((0, parameters.models))
    optimizer = make_optimizer(parameters, settings)
    views = features.shape[1]
    flat = features.flatten(0, 1)  # [n * views, d]
    # Row numbers of all steps go to the device together: nothing between two steps waits for a copy.
    sizes = [len(step.rows) for step in steps]
    rows = torch.from_numpy(np.concatenate([step.rows for step in steps])).to(flat.device)
    chosen = rows * views + torch.from_numpy(np.concatenate([step.views for step in steps])).to(flat.device)
    targets = labels[rows]
    losses: list[Tensor] = []
    epoch = 0
    for step, index, target in zip(steps, chosen.split(sizes), targets.split(sizes), strict=True):
        if step.epoch != epoch:
            if on_epoch is not None:
                on_epoch(epoch)
            epoch = step.epoch
        losses.append(loss_and_gradients(parameters, flat[index], target, settings))
        with torch.no_grad():
            optimizer.step(settings.learning_rate(epoch))
    if on_epoch is not None:
        on_epoch(epoch)
    return torch.stack(losses).double().cpu().numpy()
