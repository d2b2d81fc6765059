"""Learners under one contract, on one store: one file a learner."""

from importlib import import_module
from pkgutil import iter_modules

from tosca_cache.methods.base import METHODS, Method, method_type, register_method

__all__ = ["METHODS", "Method", "method_type", "register_method"]

for _file in iter_modules(__path__):  # importing a file registers its learners
    import_module(f"{__name__}.{_file.name}")
