"""Stage two's inner loop in PyTorch: the modules and heads of one task, all models side by side, on any device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.devices import one_thread
from tosca_cache.errors import ToscaWarning
from tosca_cache.luca.module import cosine_logits
from tosca_cache.luca.parameters import Parameters
from tosca_cache.train.optimizers import StackedOptimizer, column
from tosca_cache.train.stack import Lane, Member, Steps, adapt_stack

EpochDone = Callable[[int], None]
Step = Callable[["int | Tensor", "int | None"], None]
WARM_UP = 3  # steps on a side stream before the capture, as PyTorch asks for
LEAST_STEPS = 64  # fewer do not pay for the capture


def replayed(
    step: Step, parameters: Parameters, optimizer: StackedOptimizer, number: Tensor, count: int
) -> Step | None:
    """A step of the same effect that replays a captured graph; None where there is nothing to win or it cannot be had.

    Arguments:
        step: takes the number of a step as a tensor on the device, and no size: all shapes are those of the padded batch.
        parameters, optimizer, number: what a step changes; all is put back after warming up.
        count: how many steps there will be.
    """
    if parameters.flat.device.type != "cuda" or count < LEAST_STEPS:
        return None
    position = torch.zeros(1, dtype=torch.int64, device=parameters.flat.device)
    changed = [parameters.flat, number, *optimizer.state()]
    before = [tensor.detach().clone() for tensor in changed]
    graph = torch.cuda.CUDAGraph()
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step(position, None)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            step(position, None)
            position.add_(1)
    except RuntimeError as error:
        message = f"training goes on without a CUDA graph, more slowly: {error}"
        warnings.warn(message, ToscaWarning, stacklevel=2)
        return None
    finally:
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        position.zero_()
    return lambda _number, _size: graph.replay()


class Loss:
    """Cross-entropy over all classes seen + l1 * sum |p| over the module, of every model."""

    def __init__(self, parameters: Parameters, settings: Sequence[Settings]) -> None:
        self.parameters = parameters
        self.flows = [s.flow for s in settings]
        self.l1 = column([s.l1 for s in settings], parameters.flat)

    def with_gradients(self, x: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The losses, [M]; fills `parameters.grad`.

        Arguments:
            x: features, [n, d] or [M, n, d].
            targets, weights: class indices, and how much each row counts in the mean, [M or 1, n].
        """
        parameters = self.parameters
        logits = cosine_logits(parameters.head, adapt_stack(parameters.luca, x, self.flows))  # [M, n, C]
        M, n, C = logits.shape
        rows = F.cross_entropy(logits.reshape(M * n, C), targets.expand(M, n).reshape(M * n), reduction="none")
        entropy = (rows.view(M, n) * weights).sum(1)
        parameters.gather_gradients(torch.autograd.grad(entropy.sum(), parameters.leaves, allow_unused=True))
        module = parameters.luca_flat
        parameters.grad[:, : module.shape[1]].addcmul_(module.sign(), self.l1)
        return entropy.detach() + self.l1[:, 0] * torch.linalg.vector_norm(module, 1, dim=1)


@one_thread()
def fit(
    parameters: Parameters, lanes: Sequence[Lane], members: Sequence[Member], *, on_epoch: EpochDone | None = None
) -> list[NDArray[np.float64]]:
    """Runs all steps of every member's lane on `parameters`, in place, with fresh optimizers.

    Arguments:
        parameters: of M models.
        members: one a model; those of one flow, and within it of one optimizer, should stand together.
        on_epoch: called with the number of the epoch that ended in the first lane.

    Returns:
        The loss before each step, [steps] for each member.
    """
    steps = Steps(lanes, members)
    if not steps.count:
        return [np.empty(0) for _ in members]
    settings = [member.settings for member in members]
    loss, optimizer = Loss(parameters, settings), StackedOptimizer(parameters, settings)
    losses = torch.zeros(steps.count, parameters.models, device=parameters.flat.device, dtype=parameters.flat.dtype)
    number = torch.zeros(1, dtype=torch.float64, device=parameters.flat.device)

    def step(k: int | Tensor, size: int | None) -> None:
        """One step of all models; a tensor `k` where the step is recorded once and replayed."""
        found = loss.with_gradients(*steps.minibatch(k, size))
        number.add_(1)
        with torch.no_grad():
            if isinstance(k, int):
                losses[k] = found
            else:
                losses.index_copy_(0, k, found.unsqueeze(0))
            optimizer.step(steps.lr[k] if isinstance(k, int) else steps.lr.index_select(0, k)[0], number)

    run = replayed(step, parameters, optimizer, number, steps.count) or step
    for k in range(steps.count):
        run(k, steps.sizes[k])
        if on_epoch is not None and k < len(steps.epochs) and _ends(steps.epochs, k):
            on_epoch(steps.epochs[k])
    found = losses.double().cpu().numpy()
    return [found[: len(lanes[member.lane].batches), m] for m, member in enumerate(members)]


def _ends(epochs: Sequence[int], k: int) -> bool:
    return k + 1 == len(epochs) or epochs[k + 1] != epochs[k]
