"""A user's own file: imported before names are looked up, so that its learners and routers are known by their names."""

from __future__ import annotations

import hashlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb

from tosca_cache.errors import UsageError
from tosca_cache.learners import LEARNERS
from tosca_cache.routing import ROUTERS

__all__ = ["load_plugin"]


def load_plugin(path: Path) -> None:
    """Imports a Python file that registers learners or routers; a file that was imported before is not run again.

    Raises `UsageError` if the file cannot be imported, registers nothing, or takes a name that is taken.
    """
    file, where = Path(path).resolve(), f"--plugin {path}"
    name = f"tosca_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return
    registries: tuple[dict[str, type], ...] = (LEARNERS, ROUTERS)
    before = [dict(registry) for registry in registries]
    try:
        _import(name, file, where)
        taken = [
            key for now, old in zip(registries, before, strict=True) for key in old if now.get(key) is not old[key]
        ]
        if taken:
            problem = f"the plugin registers {taken[0]!r}, a name that is taken"
            raise UsageError(problem, where=where, remedy="give the class another `name`")
        if list(map(len, registries)) == list(map(len, before)):
            raise UsageError(
                "the plugin registers neither a learner nor a router",
                where=where,
                remedy="put @register_learner (tosca_cache.learners) or @register_router (tosca_cache.routing) on it",
            )
    except BaseException:
        sys.modules.pop(name, None)
        for registry, kept in zip(registries, before, strict=True):
            registry.clear()
            registry.update(kept)
        raise


def _import(name: str, file: Path, where: str) -> None:
    spec = spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise UsageError(
            "there is no such file, or it is no Python file",
            where=where,
            remedy="give the path of one that ends in .py",
        )
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
        raise UsageError(
            f"the plugin cannot be imported: {type(error).__name__}: {error}",
            where=where + (f", line {line}" if line else ""),
            remedy="mend the file; `python FILE.py` shows the whole traceback",
        ) from error
