"""Which device to compute on, and what is to be said about it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tosca_cache.errors import UsageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
R = TypeVar("R")

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "zarr", "scikit-learn", "safetensors")


def resolve_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the first GPU if there is one. Raises `UsageError` if it is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "meta":
            raise NotImplementedError("it holds no numbers")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"device {name!r} is not available here", where="--device", remedy="use --device cpu, or auto"
        ) from error
    return device


@contextmanager
def one_thread() -> Iterator[None]:
    """Keeps stage two's operations on the CPU on one thread; also a decorator.

    They last tens of microseconds. On a quiet machine two threads take a step in about 0.7 of the time of one; but where
    anything else runs, every operation waits until the scheduler gives both a core (seen once beside several test runs:
    324 s of training on two threads, where one thread had just taken 10 s). One thread is the safe choice.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def on_cores(function: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """`map` over several threads, each of which keeps torch's own operations to itself; with one thread, a plain map."""
    import torch

    with one_thread():
        if threads == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that are free on a device, or of this machine; a number beyond all sizes where the system does not say."""
    return _memory(device, "MemAvailable", 0)


def total_memory(device: torch.device | None = None) -> int:
    """Bytes that a device or this machine has, free or not; as `free_memory`."""
    return _memory(device, "MemTotal", 1)


def _memory(device: torch.device | None, name: str, place: int) -> int:
    """What Linux says under a name, or CUDA at a place. Cached files, which Linux gives up when asked, are available."""
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[place])
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(facts[name].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 1 << 62


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads, device, system and library versions, as plain JSON values."""
    import torch

    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
