"""What trains a task: PyTorch on any device, or compiled kernels on a CPU; the same arithmetic, to float32 rounding."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.devices import on_cores
from tosca_cache.errors import ToscaWarning, UsageError
from tosca_cache.luca.module import adapt, entropy_and_prediction
from tosca_cache.luca.parameters import Head, Luca, Parameters
from tosca_cache.train import loop
from tosca_cache.train.loop import EpochDone
from tosca_cache.train.native import fit as native
from tosca_cache.train.native.library import CannotCompileError, find_compiler, load_library
from tosca_cache.train.stack import Lane, Member

LOGITS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}  # in memory together; on a CPU in a core's cache
LEAST_ROWS = 128
PAYS = 3000  # steps; compiling takes about two seconds, once a machine, and a step then about a millisecond and a half less


@dataclass(frozen=True)
class Engine:
    """What trains. name: `torch` or `native`. threads: models that the native engine trains at the same time."""

    name: str = "torch"
    threads: int = 1

    @property
    def compile_seconds(self) -> float:
        """What compiling the kernels took in this process; 0 if they were there, or are not used."""
        return load_library().seconds if self.name == "native" else 0.0

    def fit(
        self,
        parameters: Parameters,
        lanes: Sequence[Lane],
        members: Sequence[Member],
        *,
        on_epoch: EpochDone | None = None,
    ) -> list[NDArray[np.float64]]:
        """Trains M models over all steps of their lanes, in place; see `train.loop.fit`."""
        if self.name == "native":
            return native.fit(parameters, lanes, members, threads=self.threads, on_epoch=on_epoch)
        return loop.fit(parameters, lanes, members, on_epoch=on_epoch)

    def entropy_and_prediction(
        self, parts: Sequence[Tensor], directions: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Entropy over all classes seen and most likely class of adapted rows, [n] each.

        Arguments:
            parts: adapted rows at unit length, each [rows, d].
            directions, sigma: rows of the head at unit length, [C, d]; [1].
        """
        if self.name == "native":
            return native.entropy_and_prediction(parts, directions, float(sigma))
        if directions.is_cuda:  # one large piece of work instead of many small ones
            parts = [torch.cat(list(parts))]
        at_once = LOGITS_AT_ONCE["cuda" if directions.is_cuda else "cpu"]
        size = max(LEAST_ROWS, at_once // len(directions))
        chunks = [chunk for part in parts for chunk in part.split(size)]
        found = [entropy_and_prediction(sigma * (chunk @ directions.T)) for chunk in chunks]
        return torch.cat([h for h, _ in found]), torch.cat([p for _, p in found])


def choose_engine(name: str, device: torch.device, *, steps: int, threads: int = 1) -> Engine:
    """The engine called `name` (`config.schema.ENGINES`).

    `auto` is native on a CPU if the whole request has enough steps to pay for compiling and there is a compiler; whether
    the kernels have been compiled before does not matter, so that the same request gives the same numbers every time.
    Without a compiler it is torch, with one warning.

    Arguments:
        steps: training steps of the whole request, over all settings and seeds.

    Raises `UsageError` if `native` is asked for and cannot be had.
    """
    if name == "native" and device.type != "cpu":
        raise UsageError("the native engine trains on a CPU", where="--engine", remedy="use --device cpu, or auto")
    if name == "torch" or device.type != "cpu":
        return Engine()
    pays = name == "native" or steps >= PAYS
    problem = _native_problem() if pays else _no_compiler()
    if name == "native" and problem is not None:
        raise UsageError(
            problem, where="--engine", remedy="install g++ or clang++, set CXX to one that works, or use --engine torch"
        )
    if problem is not None:
        _warn_once(problem)
    return Engine("native", threads) if pays and problem is None else Engine()


@cache
def _native_problem() -> str | None:
    try:
        load_library()
    except CannotCompileError as error:
        return str(error)
    return None


def _no_compiler() -> str | None:
    try:
        find_compiler()
    except CannotCompileError as error:
        return str(error)
    return None


@cache
def _warn_once(problem: str) -> None:
    message = f"training uses PyTorch; compiled kernels would make longer training about five times faster: {problem}"
    warnings.warn(message, ToscaWarning, stacklevel=4)


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


def divergence(losses: NDArray[np.float64], flat: Tensor, number: int) -> str | None:
    """Why the training of a task gave no numbers, from its losses and parameters; None if it did."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    if len(wrong):
        return f"the loss was {losses[wrong[0]]} before step {wrong[0] + 1} of {len(losses)} of task {number + 1}"
    if not bool(torch.isfinite(flat).all()):
        return f"a parameter was not finite after task {number + 1}"
    return None
