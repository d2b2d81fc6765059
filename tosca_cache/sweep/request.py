"""What a sweep is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tosca_cache.config import TrainConfig
from tosca_cache.config.schema import deciders, no_effect
from tosca_cache.errors import UsageError
from tosca_cache.evaluate.audit import LEAKS
from tosca_cache.learners.tosca import BATCH_ROUTER
from tosca_cache.sweep.cells import METRICS, PUBLISHED_SEEDS, check_choice
from tosca_cache.sweep.samplers import Sampler
from tosca_cache.sweep.scenario import Scenario
from tosca_cache.sweep.space import MOST_POINTS, Space, fixed

SELECTIONS = ("val", "first-task", "two-phase", "test-oracle")
ROUND = 16  # settings that are proposed at a time, so that a round is trained side by side
ORACLE = "chosen on test rows (an oracle: not a result)"


@dataclass(frozen=True)
class SweepRequest:
    """A search and the report that follows it.

    base: the setting that the points of the space change; its seeds do not count. An axis with one value becomes part of
        it, so that it holds for the base setting of the report, too.
    seeds: of every cell of the search. report_seeds: of the chosen setting's final runs on all train rows.
    sampler, trials: see `samplers.Sampler`, which draws by the first of the seeds.
    select: how settings are chosen, one of `SELECTIONS`. fraction: of each class's train rows that is held out.
    other_store: for two-phase: whether settings are tuned on another store instead of on one half of the classes.
    metric: what is maximised, as a mean over seeds.
    time_budget: seconds after which no further block of the search begins; the report's runs come on top.
    retry: run cells again that failed or diverged.
    """

    base: TrainConfig
    space: Space
    seeds: tuple[int, ...]
    report_seeds: tuple[int, ...] = PUBLISHED_SEEDS
    sampler: str = "grid"
    trials: int | None = None
    select: str = "val"
    fraction: float = 0.2
    other_store: bool = False
    metric: str = "last_accuracy"
    time_budget: float | None = None
    retry: bool = False

    def __post_init__(self) -> None:
        point, space = fixed(self.space)
        object.__setattr__(self, "base", replace(self.base, **point))
        object.__setattr__(self, "space", space)
        check_choice("--select", self.select, SELECTIONS)
        check_choice("--metric", self.metric, METRICS)
        if not 0 < self.fraction < 1:
            raise UsageError(
                f"the held-out part is {self.fraction:g} of the rows",
                where="--val-fraction",
                remedy="give a number between 0 and 1, for example 0.2",
            )
        if not self.seeds or not self.report_seeds:
            raise UsageError("there are no seeds", where="--seeds", remedy="give for example --seeds 1993,1994,1995")
        if self.sampler != "grid" and self.trials is None and self.time_budget is None and not self.space.finite:
            raise UsageError(
                "the space has a continuous range, so that the search never ends",
                where=f"--sampler {self.sampler}",
                remedy="give --trials or --time-budget",
            )
        idle = deciders(vars(self.base))
        for axis in self.space.axes:
            if axis.key in idle:
                raise no_effect(axis.key, idle[axis.key], axis.where)
        if self.other_store and self.select != "two-phase":
            raise UsageError(
                "another store to tune on is part of the two-phase protocol",
                where="--tune-store",
                remedy="add --select two-phase",
            )

    def make_sampler(self) -> Sampler:
        """What chooses the settings that are tried."""
        return Sampler(self.sampler, self.space, self.base, trials=self.trials, seed=self.seeds[0])

    @property
    def round(self) -> int:
        """Settings that are tried at a time: all of a grid or of counted random draws."""
        everything = self.sampler == "grid" or (self.sampler == "random" and self.trials)
        return MOST_POINTS if everything else ROUND

    @property
    def searched(self) -> tuple[Scenario, ...]:
        """What each setting of the search is trained and scored on; the first one decides."""
        held_out = Scenario("val", self.fraction)
        if self.select == "two-phase":
            return (Scenario("test"),) if self.other_store else (Scenario("half-1"),)
        if self.select == "test-oracle":
            return Scenario("test"), held_out
        return (held_out,) if self.select == "val" else (Scenario("first-task", self.fraction),)

    @property
    def reported(self) -> Scenario:
        """What the final runs are trained and scored on."""
        return Scenario("half-2") if self.select == "two-phase" and not self.other_store else Scenario("test")

    @property
    def how(self) -> str:
        """How settings are chosen, in words."""
        of_domains = self.base.incremental == "domains"
        whose = "the train rows of each class of each domain" if of_domains else "each class's train rows"
        held_out = f"{self.fraction:.0%} of {whose} held out"
        half = "the first half of each domain's classes" if of_domains else "the first half of the classes"
        leaks = f"; by batch routing, which {LEAKS}" if self.leaks else ""
        return {
            "val": f"chosen on {held_out}",
            "first-task": f"chosen on the first {'domain' if of_domains else 'task'} alone, {held_out}",
            "two-phase": "chosen on " + ("another store" if self.other_store else half),
            "test-oracle": ORACLE,
        }[self.select] + leaks

    @property
    def leaks(self) -> bool:
        """Whether any setting of the search, or the base setting, is scored by batch routing."""
        return BATCH_ROUTER in (self.base.router, *self.space.listed("router"))
