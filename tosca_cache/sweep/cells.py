"""Cells: one setting with one seed, trained and scored in one way, addressed by the hash of everything that decides it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from typing import Any

import numpy as np

from tosca_cache.config import Settings, TrainConfig
from tosca_cache.config.checks import nearest
from tosca_cache.config.schema import KEYS
from tosca_cache.errors import ConfigError, UsageError
from tosca_cache.sweep.ledger import canonical_json
from tosca_cache.sweep.scenario import Scenario

PUBLISHED_SEEDS = (1993, 1994, 1995, 1996, 1997)
LAST = ("last_accuracy", "last_accuracy_over_tasks")  # what one evaluation after the last task tells
METRICS = ("last_accuracy", "average_accuracy", "last_accuracy_over_tasks", "average_accuracy_over_tasks")
FEW_SHOT = ("performance_drop", "harmonic_mean")  # reported as well where later tasks have a few rows of each class
REPORTED = (
    "last_accuracy",
    "average_accuracy",
    "forgetting",
    "task_identification_accuracy",
    "accuracy_given_right_task",
)

# Raised whenever a change to the code makes the same cell give other numbers than before (beyond float32 rounding):
# cells of other versions are then not taken for finished. tests/sweep/test_cells.py notices.
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
    """config: with one seed. scenario: which rows. store: digest of the fingerprint of the store.

    curve: whether it is evaluated after every task; otherwise after the last one alone, for the last accuracy.
    """

    config: TrainConfig
    scenario: Scenario
    store: str
    curve: bool = True

    @property
    def seed(self) -> int:
        """Its one seed."""
        return self.config.seeds[0]

    @property
    def trained(self) -> tuple[Settings, int]:
        """What its training depends on, of cells of one shape and scenario; a router is asked afterwards."""
        return Settings.of(self.config), self.seed

    @property
    def measures(self) -> tuple[str, ...]:
        """The numbers that its result has, or null where they are not defined."""
        return METRICS + REPORTED if self.curve else LAST

    @property
    def content(self) -> dict[str, Any]:
        """Everything that its numbers depend on, as plain JSON values."""
        return {
            "setting": setting_of(self.config),
            "seed": self.seed,
            "select": self.scenario.content() | tasks_of(self.config) | ({} if self.curve else {"evaluated": "last"}),
            "store": self.store,
            "arithmetic": ARITHMETIC,
        }

    @cached_property
    def address(self) -> str:
        """SHA-256 of the content in canonical JSON."""
        return hashlib.sha256(canonical_json(self.content).encode()).hexdigest()


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
    """The base setting with the values of a point; raises `ConfigError` that names the point if it cannot be trained."""
    try:
        return replace(base, **point)
    except ConfigError as error:
        words = ", ".join(f"{key}={value}" for key, value in point.items())
        raise ConfigError(error.problem, where=f"the point {words}", remedy=error.remedy) from None


def cells_of(
    config: TrainConfig, seeds: Sequence[int], scenario: Scenario, store: str, *, curve: bool = True
) -> list[Cell]:
    """One setting with several seeds."""
    return [Cell(replace(config, seeds=(seed,)), scenario, store, curve) for seed in seeds]


@dataclass(frozen=True)
class Scored:
    """A setting and what it reached. point: what the space says of it. mean, spread: of the metric, over its seeds."""

    point: dict[str, Any]
    config: TrainConfig
    mean: float
    spread: float
    seeds: int

    def words(self) -> str:
        """The point and its score."""
        values = setting_words(self.point)
        return f"{self.mean:.2f} ± {self.spread:.2f}: {values}" if self.seeds > 1 else f"{self.mean:.2f}: {values}"


def setting_words(point: Mapping[str, Any]) -> str:
    """A point of a space in words."""
    return ", ".join(f"{key} {value}" for key, value in point.items()) or "the base setting"


def mean_spread(values: Sequence[Any]) -> tuple[float, float]:
    """Mean and sample standard deviation of numbers; NaN where there are too few."""
    if not values:
        return nan, nan
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else nan


def check_choice(option: str, value: str, known: Sequence[str]) -> None:
    """Raises `UsageError` that names the nearest if an option has a value that it cannot have."""
    if value not in known:
        raise UsageError(
            f"{option} cannot be {value!r}",
            where=option,
            remedy=f"did you mean {nearest(value, known)!r}? Known: {', '.join(known)}",
        )
