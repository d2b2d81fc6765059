"""What is compared; and its cells: one learner with one seed, addressed by the hash of all that decides its numbers."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tosca_cache.config import TrainConfig, check_value
from tosca_cache.errors import UsageError
from tosca_cache.learners import learner_type
from tosca_cache.learners.options import FROM_CONFIG, check_options, full_options
from tosca_cache.sweep.cells import ARITHMETIC, PUBLISHED_SEEDS, setting_of, tasks_of
from tosca_cache.sweep.ledger import canonical_json

MOST_COUNT = 100  # a single larger number is a seed


@dataclass(frozen=True)
class CompareRequest:
    """config: protocol and training settings of all learners; its seeds do not count. methods: names, each once.

    seeds: of class order and of everything random. options: {method: {option: value}}, see `learners.options_of`.
    """

    config: TrainConfig
    methods: tuple[str, ...]
    seeds: tuple[int, ...] = PUBLISHED_SEEDS
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.methods:
            raise UsageError("there are no methods", where="--methods", remedy="give names, or all")
        check_value("seeds", self.seeds, where="--seeds")
        check_options(self.options)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds of a count or a list: 5 is the five published ones, 1993,1994 is a list, and so are 1993 and 7, (one seed).

    Raises `UsageError` for what is neither.
    """
    plain = text.strip()
    if plain.isdecimal() and int(plain) <= MOST_COUNT:
        return seeds_of(int(plain))
    seeds = check_value("seeds", plain.rstrip(","), where="--seeds")
    assert isinstance(seeds, tuple)
    return seeds


def seeds_of(asked: int | Sequence[int]) -> tuple[int, ...]:
    """So many seeds, counted from the first published one, or these; raises `UsageError` for none."""
    if not isinstance(asked, int):
        return tuple(asked)
    if asked < 1:
        raise UsageError("no seeds were asked for", where="--seeds", remedy="give a count of 1 or more")
    return tuple(range(PUBLISHED_SEEDS[0], PUBLISHED_SEEDS[0] + asked))


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
