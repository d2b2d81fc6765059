"""`train.loop.fit` by the compiled kernels, every model by itself; and entropy and prediction of adapted rows."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.config.schema import FLOWS, OPTIMIZERS
from tosca_cache.devices import on_cores
from tosca_cache.luca.parameters import LucaShape, Parameters
from tosca_cache.train.loop import EpochDone
from tosca_cache.train.native.library import load_library
from tosca_cache.train.stack import Lane, Member, learning_rates

Array = NDArray[Any]


class _Task(ctypes.Structure):
    """`Task` of fit.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("dim", "hidden", "squeezed", "classes", "flow", "kind")),
        *((name, ctypes.c_void_p) for name in ("parameters", "features", "index", "targets", "sizes", "lr")),
        ("steps", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("l1", "decay", "momentum")),
        ("losses", ctypes.c_void_p),
    )


class _LaneArrays(NamedTuple):
    """Of one lane: features [n * views, d] float32; of all its steps one after the other: feature rows, targets, sizes."""

    features: Array
    chosen: Array
    targets: Array
    sizes: Array

    @classmethod
    def of(cls, lane: Lane) -> _LaneArrays:
        """The arrays of a lane, as the kernels read them."""
        n, views, d = lane.features.shape
        features = np.ascontiguousarray(lane.features.reshape(n * views, d).numpy(), dtype=np.float32)
        empty = np.empty(0, dtype=np.int64)
        rows = np.concatenate([empty, *(batch.rows for batch in lane.batches)])
        chosen = rows * views + np.concatenate([empty, *(batch.views for batch in lane.batches)])
        sizes = np.array([len(batch.rows) for batch in lane.batches], dtype=np.int64)
        return cls(features, chosen, np.ascontiguousarray(lane.labels.numpy()[rows], dtype=np.int64), sizes)


def fit(
    parameters: Parameters,
    lanes: Sequence[Lane],
    members: Sequence[Member],
    *,
    threads: int = 1,
    on_epoch: EpochDone | None = None,
) -> list[NDArray[np.float64]]:
    """As `train.loop.fit`, for parameters in float32 on a CPU.

    A model's numbers depend on nothing but itself: not on how many others there are, nor on the number of threads.

    Arguments:
        threads: models trained at the same time.
        on_epoch: called once, with the number of the last epoch.
    """
    arrays = [_LaneArrays.of(lane) for lane in lanes]
    flat = parameters.flat.numpy()

    def one(m: int) -> NDArray[np.float64]:
        settings, lane = members[m]
        rates = np.array(learning_rates(settings, lanes[lane].batches), dtype=np.float64)
        return _fit_one(flat[m], parameters.shape, parameters.classes, settings, arrays[lane], rates)

    losses = on_cores(one, range(len(members)), min(threads, len(members)))
    if on_epoch is not None and lanes[0].batches:
        on_epoch(lanes[0].batches[-1].epoch)
    return losses


def _fit_one(
    flat: Array, shape: LucaShape, classes: int, settings: Settings, lane: _LaneArrays, lr: Array
) -> NDArray[np.float64]:
    losses = np.zeros(len(lane.sizes), dtype=np.float64)
    task = _Task(
        dim=shape.dim,
        hidden=shape.mlp_hidden,
        squeezed=shape.se_hidden,
        classes=classes,
        flow=FLOWS.index(settings.flow),
        kind=OPTIMIZERS.index(settings.optimizer),
        parameters=flat.ctypes.data,
        features=lane.features.ctypes.data,
        index=lane.chosen.ctypes.data,
        targets=lane.targets.ctypes.data,
        sizes=lane.sizes.ctypes.data,
        lr=lr.ctypes.data,
        steps=len(lane.sizes),
        l1=settings.l1,
        decay=settings.weight_decay,
        momentum=settings.momentum,
        losses=losses.ctypes.data,
    )
    if load_library().functions.tosca_fit(ctypes.byref(task)):
        raise MemoryError("not enough memory to train one module")
    return losses


class _Rows(ctypes.Structure):
    """`Rows` of score.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("dim", "classes", "parts")),
        ("directions", ctypes.c_void_p),
        ("sigma", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("adapted", "rows", "entropy", "prediction")),
    )


def entropy_and_prediction(parts: Sequence[Tensor], directions: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """As `luca.module.entropy_and_prediction` of the cosine logits, for float32 on a CPU.

    Arguments:
        parts: adapted rows at unit length, each [rows, d].
        directions: rows of the head at unit length, [C, d].

    Returns:
        Entropy and most likely class of all rows, [n].
    """
    parts = [part.contiguous() for part in parts]
    directions = directions.contiguous()
    rows = np.array([len(part) for part in parts], dtype=np.int64)
    pointers = np.array([part.data_ptr() for part in parts], dtype=np.uint64)
    entropy = torch.empty(int(rows.sum()), dtype=torch.float32)
    prediction = torch.empty(int(rows.sum()), dtype=torch.int64)
    task = _Rows(
        dim=directions.shape[1],
        classes=directions.shape[0],
        parts=len(parts),
        directions=directions.data_ptr(),
        sigma=sigma,
        adapted=pointers.ctypes.data,
        rows=rows.ctypes.data,
        entropy=entropy.data_ptr(),
        prediction=prediction.data_ptr(),
    )
    if load_library().functions.tosca_score(ctypes.byref(task)):
        raise MemoryError("not enough memory to score rows")
    return entropy, prediction
