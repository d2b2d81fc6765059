"""Compiling the training kernels, once a machine, and loading them.

A library is kept as `tosca-KEY-DIGEST.so`: what it was made of and for, and what its bytes are. One whose bytes are others
(the disk was full, the file was cut) is not loaded, which would end the process, but made again.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from time import perf_counter

from tosca_cache.files import Limit, read_limited

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
PATIENCE = 300  # seconds that a compiler may take
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
    folder, key = _folder(), _key(sources, compiler)
    start = perf_counter()
    try:
        found = _kept(folder, key)
        functions = ctypes.CDLL(str(found or _compile(compiler, sources, folder, key)))
    except OSError as error:
        raise CannotCompileError(f"the compiled kernels cannot be kept or loaded: {error}") from error
    for function in (functions.tosca_fit, functions.tosca_score):
        function.restype = ctypes.c_int
        function.argtypes = [ctypes.c_void_p]
    return Library(functions, 0.0 if found else perf_counter() - start)


def find_compiler() -> str:
    """The path of a C++ compiler, CXX first; raises `CannotCompileError` if there is none."""
    for name in (os.environ.get("CXX", ""), *COMPILERS):
        if name and (path := shutil.which(name)):
            return path
    raise CannotCompileError(f"there is no C++ compiler (looked for {', '.join(COMPILERS)})")


def _kept(folder: Path, key: str) -> Path | None:
    """The library of this key whose bytes are those that its name says; None if there is none. Others are removed."""
    for path in sorted(folder.glob(f"tosca-{key}-*.so")):
        with suppress(OSError):
            if path.stem.endswith(f"-{_digest(path)}"):
                return path
            path.unlink()
    return None


def _compile(compiler: str, sources: dict[str, bytes], folder: Path, key: str) -> Path:
    """Compiles beside the library's place and renames, so that nobody, now or after a crash, sees half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name, text in sources.items():
            (Path(place) / name).write_bytes(text)
        output, problems = Path(place) / "kernels.so", []
        for processor in FOR_THIS_PROCESSOR:
            programs = [str(Path(place) / name) for name in PROGRAMS]
            result = _run([compiler, *FLAGS, processor, *programs, "-o", str(output)])
            if result.returncode == 0:
                with output.open("rb") as file:
                    os.fsync(file.fileno())
                return output.replace(folder / f"tosca-{key}-{_digest(output)}.so")
            problems.append(_problem(result))
        raise CannotCompileError(f"{compiler} does not compile them: {problems[0]}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise CannotCompileError(f"{command[0]} has not finished after {PATIENCE} seconds") from None
    except OSError as error:
        raise CannotCompileError(f"{command[0]} cannot be run: {error.strerror}") from error


def _problem(result: subprocess.CompletedProcess[str]) -> str:
    code = result.returncode
    how = f"exit status {code}" if code > 0 else f"ended by signal {-code}"
    said = result.stderr.strip() or result.stdout.strip()
    return f"{how}; it says: {said[:400]}" if said else f"{how}, without a word"


def _key(sources: dict[str, bytes], compiler: str) -> str:
    """What the machine code depends on: sources, flags, compiler and processor (a home may be shared between machines)."""
    version = _run([compiler, "--version"]).stdout.encode()
    parts = [*sources.values(), " ".join(FLAGS).encode(), version, _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _digest(path: Path) -> str:
    return hashlib.sha256(read_limited(path, Limit.KERNELS)).hexdigest()[:20]


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
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))  # which does not count, says its standard, unless it is absolute
    return (given if given.is_absolute() else Path.home() / ".cache") / "tosca_cache"
