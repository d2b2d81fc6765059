"""tosca_cache: class-incremental learning on a frozen backbone's cached features. See `tosca_cache.api`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tosca_cache.api import evaluate, open_store, route, task_stream, train

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "open_store", "route", "task_stream", "train"]


def __getattr__(name: str) -> Any:
    """Loads the functions of `tosca_cache.api` on first use, so that importing the package stays quick."""
    if name in __all__:
        from tosca_cache import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
