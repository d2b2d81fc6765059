"""What a machine can do at best, measured: multiply-adds in float32, and bytes read and written in cache and in memory."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from tosca_cache.luca.parameters import LucaShape
from tosca_cache.train.native.library import FLAGS, FOR_THIS_PROCESSOR, CannotCompileError, find_compiler

LOOPS = 20_000_000


def operations(shape: LucaShape, classes: float, rows: int) -> float:
    """Floating point operations of the matrix products of one training step of one model.

    Module: forward 4 products of rows x hidden x d; backward the same 4 for the weights, and 3 for what is passed on (the
    features themselves need no gradient). Head: one product forward, two backward.
    """
    d, h, s = shape.dim, shape.mlp_hidden, shape.se_hidden
    module = 2 * (2 * h + 2 * s) + (h + 2 * s)
    return 2.0 * rows * d * (module + 3 * classes)


def bytes_moved(shape: LucaShape, classes: float, rows: int) -> float:
    """Bytes that one step must move if activations stay in cache: parameters are read three times (forward, backward,
    update) and written once, momentum is read and written, features are read."""
    parameters = shape.luca_size + classes * shape.dim
    return 4.0 * (6 * parameters + rows * shape.dim)


def measured_peak(threads: int, device: torch.device) -> dict[str, float]:
    """`multiply-adds`: operations a second in float32; `matmul`: of PyTorch's largest products; `bytes`: a second."""
    if device.type == "cuda":
        return {"matmul": _matmul(device, 8192), "bytes": _copy(device, 2**30)}
    rates = {"matmul": _matmul(device, 2048), "bytes": _copy(device, 2**20)}
    try:
        rates["multiply-adds"] = _multiply_adds(threads)
    except (CannotCompileError, subprocess.CalledProcessError):
        rates["multiply-adds"] = rates["matmul"]
    return rates


def _multiply_adds(threads: int) -> float:
    source = Path(__file__).with_name("peak.cpp")
    headers = str(files("tosca_cache.train.native"))
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "peak.so")
        command = [find_compiler(), *FLAGS, FOR_THIS_PROCESSOR[0], "-I", headers, str(source), "-o", output]
        subprocess.run(command, check=True, capture_output=True)
        library = ctypes.CDLL(output)
    library.tosca_peak_operations.restype = ctypes.c_int64
    done = library.tosca_peak_operations(ctypes.c_int64(LOOPS))
    with ThreadPoolExecutor(threads) as pool:
        best = 0.0
        for _ in range(3):
            start = perf_counter()
            list(pool.map(lambda _: library.tosca_peak(ctypes.c_int64(LOOPS)), range(threads)))
            best = max(best, done * threads / (perf_counter() - start))
    return best


def _matmul(device: torch.device, side: int) -> float:
    a = torch.randn(side, side, device=device)
    return max(2.0 * side**3 / _seconds(lambda: a @ a, device) for _ in range(3))


def _copy(device: torch.device, size: int) -> float:
    source = torch.from_numpy(np.ones(size // 4, dtype=np.float32)).to(device)
    target = torch.empty_like(source)
    return max(2.0 * size / _seconds(lambda: target.copy_(source), device) for _ in range(20))


def _seconds(work: object, device: torch.device) -> float:
    assert callable(work)
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start
