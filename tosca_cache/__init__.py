"""tosca_cache: class-incremental learning on a frozen backbone's cached features.

import tosca_cache as tosca

The functions of `tosca_cache.api` are attributes of the package; they, and torch with them, are loaded when first used.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tosca_cache.api import (
        compare,
        evaluate,
        import_features,
        ledger,
        open_store,
        route,
        runs,
        sweep,
        task_stream,
        train,
        verify_store,
    )
    from tosca_cache.errors import ToscaError
    from tosca_cache.model.classifier import Model

    __version__: str

__all__ = [
    "Model",
    "ToscaError",
    "__version__",
    "compare",
    "evaluate",
    "import_features",
    "ledger",
    "open_store",
    "predict",
    "route",
    "runs",
    "sweep",
    "task_stream",
    "train",
    "verify_store",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name == "ToscaError":
        from tosca_cache import errors

        value = errors.ToscaError
    elif name == "Model":
        from tosca_cache.model.classifier import Model

        value = Model
    elif name in __all__:
        from tosca_cache import api

        value = getattr(api, name)
        if (room := sys.modules.get(f"{__name__}.{name}")) is not None:
            value.__dict__ = vars(room)  # the files of a room of the same name are found through the function
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The version of the installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tosca-cache")
    except PackageNotFoundError:
        return "0+unknown"  # a copy that is not installed


class _Package(ModuleType):
    """Some rooms have a function's name: importing `tosca_cache.sweep` does not hide the function `tosca.sweep`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
