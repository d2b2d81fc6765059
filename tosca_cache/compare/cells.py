"""A cell of a comparison: one learner with one seed, addressed by the hash of everything that decides its numbers."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tosca_cache.compare.request import CompareRequest
from tosca_cache.config import TrainConfig
from tosca_cache.learners import learner_type
from tosca_cache.learners.options import FROM_CONFIG, full_options
from tosca_cache.sweep.cells import ARITHMETIC, setting_of, tasks_of
from tosca_cache.sweep.ledger import canonical_json


@dataclass(frozen=True)
class CompareCell:
    """method: name of the learner. options: all of them, defaults included. store: digest of the store's fingerprint."""

    config: TrainConfig
    method: str
    options: Mapping[str, Any]
    seed: int
    store: str

    @cached_property
    def content(self) -> dict[str, Any]:
        """Everything that its numbers depend on, as plain JSON values, laid out as a sweep's cells are."""
        setting = {key: value for key, value in setting_of(self.config).items() if key not in FROM_CONFIG}
        options = {
            f"{self.method}.{key}": list(value) if isinstance(value, tuple) else value
            for key, value in self.options.items()
        }
        return {
            "setting": {"method": self.method, **setting, **options},
            "seed": self.seed,
            "select": {"rows": "test"} | tasks_of(self.config),
            "store": self.store,
            "arithmetic": ARITHMETIC,
            "code": code_digest(self.method),
        }

    @cached_property
    def address(self) -> str:
        """SHA-256 of the content in canonical JSON."""
        return hashlib.sha256(canonical_json(self.content).encode()).hexdigest()


def code_digest(method: str) -> str:
    """Digest of the file that a learner is written in: a learner that was edited is another one. Empty for one without."""
    try:
        file = inspect.getsourcefile(learner_type(method))
    except TypeError:  # defined where there is no file
        return ""
    return "" if file is None or not Path(file).is_file() else hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


def cells_of(request: CompareRequest, method: str, store: str) -> list[CompareCell]:
    """The cells of one learner, one a seed."""
    options = full_options(method, request.config, request.options.get(method, {}))
    return [CompareCell(request.config, method, options, seed, store) for seed in request.seeds]
