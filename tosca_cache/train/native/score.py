"""Entropy and prediction of adapted rows by the compiled kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tosca_cache.train.native.library import load_library


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
