"""Compiling the training kernels, once a machine, and loading them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from time import perf_counter

PROGRAMS = ("fit.cpp", "score.cpp")
SOURCES = (
    *PROGRAMS,
    "backward.hpp",
    "forward.hpp",
    "matrix.hpp",
    "model.hpp",
    "optimizer.hpp",
    "products.hpp",
    "vector.hpp",
)
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-shared", "-fPIC")
FOR_THIS_PROCESSOR = ("-march=native", "-mcpu=native")  # the second where a compiler does not know the first
DIGEST = ".sha256"  # suffix of the file beside the kernels that has their digest
CACHE = "TOSCA_KERNEL_CACHE"  # environment variable: the folder of compiled kernels


@dataclass(frozen=True)
class Library:
    """The loaded kernels. seconds: what compiling took; 0 if they had been compiled before."""

    functions: ctypes.CDLL
    seconds: float


class CannotCompileError(Exception):
    """The kernels cannot be compiled or loaded here; says why."""


@cache
def load_library() -> Library:
    """The kernels for this processor; raises `CannotCompileError` if there is no compiler or it fails."""
    compiler = find_compiler()
    sources = {name: files(__package__).joinpath(name).read_bytes() for name in SOURCES}
    target = _folder() / f"tosca-{_digest(sources, compiler)}.so"
    start = perf_counter()
    try:
        fresh = not _is_whole(target)
        if fresh:
            _compile(compiler, sources, target)
        functions = ctypes.CDLL(str(target))
    except OSError as error:
        raise CannotCompileError(f"the compiled kernels cannot be kept or loaded: {error}") from error
    for function in (functions.tosca_fit, functions.tosca_score):
        function.restype = ctypes.c_int
        function.argtypes = [ctypes.c_void_p]
    return Library(functions, perf_counter() - start if fresh else 0.0)


def find_compiler() -> str:
    """The path of a C++ compiler, CXX first; raises `CannotCompileError` if there is none."""
    for name in (os.environ.get("CXX", ""), *COMPILERS):
        if name and (path := shutil.which(name)):
            return path
    raise CannotCompileError(f"there is no C++ compiler (looked for {', '.join(COMPILERS)})")


def _compile(compiler: str, sources: dict[str, bytes], target: Path) -> None:
    """Compiles beside the target and renames, so that two processes at once do not see half a file; the digest is last."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        for name, text in sources.items():
            (Path(folder) / name).write_bytes(text)
        output = Path(folder) / target.name
        said = ""
        for processor in FOR_THIS_PROCESSOR:
            programs = [str(Path(folder) / name) for name in PROGRAMS]
            command = [compiler, *FLAGS, processor, *programs, "-o", str(output)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                with output.open("rb+") as file:
                    os.fsync(file.fileno())
                digest = output.with_suffix(DIGEST)
                digest.write_text(hashlib.sha256(output.read_bytes()).hexdigest(), encoding="ascii")
                output.replace(target)
                digest.replace(target.with_suffix(DIGEST))
                return
            said = said or result.stderr.strip()[:400] or f"exit status {result.returncode}, and not a word"
        raise CannotCompileError(f"{compiler} fails: {said}")


def _is_whole(target: Path) -> bool:
    """Whether the compiled kernels are there as they were written: half a library would crash whoever loads it."""
    digest = target.with_suffix(DIGEST)
    if not (target.is_file() and digest.is_file()):
        return False
    return digest.read_bytes() == hashlib.sha256(target.read_bytes()).hexdigest().encode()


def _digest(sources: dict[str, bytes], compiler: str) -> str:
    """What the machine code depends on: sources, flags, compiler and processor (a home may be shared between machines)."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    parts = [*sources.values(), " ".join(FLAGS).encode(), version, _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.machine() + platform.processor()
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    facts = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return platform.machine() + "".join(sorted(facts))


def _folder() -> Path:
    """Where compiled kernels are kept: a folder of the user's own, for what lies in it is executed."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tosca_cache"
