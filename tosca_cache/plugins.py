"""A user's own file: imported before names are looked up, so that its learners and routers are known by their names."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from tosca_cache.errors import UsageError
from tosca_cache.learners import LEARNERS
from tosca_cache.routing import ROUTERS

__all__ = [
    "OPTION",
    "Registry",
    "load_plugin",
    "load_plugins",
]

OPTION = "--plugin"
Registry = dict[str, type]


def load_plugins(paths: Sequence[Path]) -> None:
    """Imports each file once; see `load_plugin`."""
    for path in paths:
        load_plugin(path)


def load_plugin(path: Path) -> ModuleType:
    """Imports a Python file that registers learners or routers; a file that was imported before is not run again.

    Raises `UsageError` if the file cannot be imported, registers nothing, or takes a name that is taken.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise UsageError("there is no such file", where=f"{OPTION} {path}", remedy="give the path of a Python file")
    module_name = f"tosca_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    registries: tuple[Registry, ...] = (LEARNERS, ROUTERS)
    before = [dict(registry) for registry in registries]
    try:
        module = _import(module_name, file, path)
        _check(registries, before, path)
    except BaseException:
        sys.modules.pop(module_name, None)
        for registry, kept in zip(registries, before, strict=True):
            registry.clear()
            registry.update(kept)
        raise
    return module


def _import(name: str, file: Path, shown: Path) -> ModuleType:
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError("this is not a Python file", where=f"{OPTION} {shown}", remedy="give a file that ends in .py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
        raise UsageError(
            f"the plugin cannot be imported: {type(error).__name__}: {error}",
            where=f"{OPTION} {shown}" + (f", line {line}" if line else ""),
            remedy="mend the file; `python FILE.py` shows the whole traceback",
        ) from error
    return module


def _check(registries: Sequence[Registry], before: Sequence[Mapping[str, type]], path: Path) -> None:
    taken = [
        name for now, old in zip(registries, before, strict=True) for name in old if now.get(name) is not old[name]
    ]
    if taken:
        raise UsageError(
            f"the plugin registers {taken[0]!r}, a name that is taken",
            where=f"{OPTION} {path}",
            remedy="give the class another `name`",
        )
    if all(len(now) == len(old) for now, old in zip(registries, before, strict=True)):
        raise UsageError(
            "the plugin registers neither a learner nor a router",
            where=f"{OPTION} {path}",
            remedy="put @register_learner (tosca_cache.learners) or @register_router (tosca_cache.routing) on its class",
        )
