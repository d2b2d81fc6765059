"""Which module answers for a sample: one file a router, or a family of them."""

from importlib import import_module
from pkgutil import iter_modules

from tosca_cache.routing.base import ROUTERS, ModuleOutputs, RoutedPrediction, Router, make_router, register_router

__all__ = ["ROUTERS", "ModuleOutputs", "RoutedPrediction", "Router", "make_router", "register_router"]

for _file in iter_modules(__path__):  # importing a file registers its routers
    import_module(f"{__name__}.{_file.name}")
