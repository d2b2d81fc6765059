"""Learners under one contract, on one store: one file a learner."""

from importlib import import_module
from pkgutil import iter_modules

from tosca_cache.learners.base import LEARNERS, Learner, learner_type, register_learner

__all__ = ["LEARNERS", "Learner", "learner_type", "register_learner"]

for _file in iter_modules(__path__):  # importing a file registers its learners
    import_module(f"{__name__}.{_file.name}")
