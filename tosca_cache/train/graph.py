"""One training step as a CUDA graph: the device runs step after step without waiting for Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tosca_cache.errors import ToscaWarning
from tosca_cache.luca.parameters import Parameters

if TYPE_CHECKING:
    from tosca_cache.train.optimizers import StackedOptimizer

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
