"""Cells: one setting with one seed, trained and scored in one way, addressed by the hash of everything that decides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tosca_cache.config import TrainConfig
from tosca_cache.config.schema import KEYS
from tosca_cache.sweep.scenario import Scenario
from tosca_cache.train.settings import Settings

# Raised whenever a change to the code makes the same cell give other numbers than before (beyond float32 rounding):
# cells of other versions are then not taken for finished. tests/sweep/test_arithmetic.py notices.
ARITHMETIC = 1

# Said by the store's fingerprint, by what is selected on, by the cell's own seed, or of no influence on the numbers.
_ELSEWHERE = (
    *("dataset", "backbone", "normalize", "img_size", "views", "incremental", "shots", "seeds", "device", "engine"),
    *("method", "options"),  # a sweep is of TOSCA; other learners are compared
)
# Keys that only count while another has a certain value: two settings that differ in no key that counts are one.
_COUNTS_ONLY = {
    "momentum": ("optimizer", "sgd"),
    "eta_min": ("scheduler", "cosine"),
    "milestones": ("scheduler", "steplr"),
    "gamma": ("scheduler", "steplr"),
    "routing_batch_size": ("router", "batch"),
}
SETTING_KEYS = tuple(key for key in KEYS if key not in _ELSEWHERE)


@dataclass(frozen=True)
class Cell:
    """config: with one seed. scenario: which rows. store: digest of the fingerprint of the store."""

    config: TrainConfig
    scenario: Scenario
    store: str

    @property
    def seed(self) -> int:
        """Its one seed."""
        return self.config.seeds[0]

    @property
    def trained(self) -> tuple[Settings, int]:
        """What its training depends on, of cells of one shape and scenario; a router is asked afterwards."""
        return Settings.of(self.config), self.seed

    @property
    def content(self) -> dict[str, Any]:
        """Everything that its numbers depend on, as plain JSON values."""
        return {
            "setting": setting_of(self.config),
            "seed": self.seed,
            "select": self.scenario.content() | tasks_of(self.config),
            "store": self.store,
            "arithmetic": ARITHMETIC,
        }

    @cached_property
    def address(self) -> str:
        """SHA-256 of the content in canonical JSON."""
        text = json.dumps(self.content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def tasks_of(config: TrainConfig) -> dict[str, Any]:
    """What a cell's address says of its tasks: that they are domains, or few-shot; or nothing, so that no older address
    changes."""
    domains = {} if config.incremental == "classes" else {"incremental": config.incremental}
    return domains | ({} if config.shots is None else {"shots": config.shots})


def setting_of(config: TrainConfig) -> dict[str, Any]:
    """The keys of a configuration that count, by which settings are told apart."""
    values = {key: getattr(config, key) for key in SETTING_KEYS}
    for key, (other, value) in _COUNTS_ONLY.items():
        if values[other] != value:
            del values[key]
    if values["init_cls"] is None:
        values["init_cls"] = values["increment"]
    for key in ("task_sizes", "class_order"):  # nothing where there is none, so that no older address changes
        if values[key] is None:
            del values[key]
    values = {key: value for key, value in values.items() if key not in config.idle}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def with_point(base: TrainConfig, point: Mapping[str, Any]) -> TrainConfig:
    """The base setting with the values of a point."""
    return replace(base, **point)


def cells_of(config: TrainConfig, seeds: Sequence[int], scenario: Scenario, store: str) -> list[Cell]:
    """One setting with several seeds."""
    return [Cell(replace(config, seeds=(seed,)), scenario, store) for seed in seeds]
