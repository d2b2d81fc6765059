"""What is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tosca_cache.config import TrainConfig, check_value
from tosca_cache.errors import UsageError
from tosca_cache.learners.options import check_options
from tosca_cache.sweep.cells import PUBLISHED_SEEDS

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
