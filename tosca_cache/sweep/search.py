"""A search: what is asked for, rounds of settings with their scores, the choice, and fresh runs of what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tosca_cache.config import TrainConfig
from tosca_cache.config.schema import deciders, no_effect
from tosca_cache.errors import RunError, UsageError
from tosca_cache.evaluate.audit import LEAKS
from tosca_cache.learners.tosca import BATCH_ROUTER
from tosca_cache.sweep.cells import (
    FEW_SHOT,
    LAST,
    METRICS,
    PUBLISHED_SEEDS,
    REPORTED,
    Cell,
    Scored,
    cells_of,
    check_choice,
    mean_spread,
    with_point,
)
from tosca_cache.sweep.runner import Runner
from tosca_cache.sweep.samplers import Sampler
from tosca_cache.sweep.scenario import Scenario
from tosca_cache.sweep.space import MOST_POINTS, Point, Space, fixed

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
    metric: what is maximised, as a mean over seeds.
    """

    base: TrainConfig
    space: Space
    seeds: tuple[int, ...]
    report_seeds: tuple[int, ...] = PUBLISHED_SEEDS
    sampler: str = "grid"
    trials: int | None = None
    select: str = "val"
    fraction: float = 0.2
    metric: str = "last_accuracy"

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
        if self.sampler != "grid" and self.trials is None and not self.space.finite:
            raise UsageError(
                "the space has a continuous range, so that the search never ends",
                where=f"--sampler {self.sampler}",
                remedy="give --trials",
            )
        idle = deciders(vars(self.base))
        for axis in self.space.axes:
            if axis.key in idle:
                raise no_effect(axis.key, idle[axis.key], axis.where)

    def sampled(self) -> Sampler:
        """What chooses the settings that are tried."""
        return Sampler(self.sampler, self.space, self.base, trials=self.trials, seed=self.seeds[0])

    @property
    def round(self) -> int:
        """Settings that are tried at a time: all of them, where none depends on the scores of others."""
        return ROUND if self.sampler == "tpe" else MOST_POINTS

    @property
    def searched(self) -> Scenario:
        """What each setting of the search is trained and scored on."""
        rows = {"two-phase": "half-1", "test-oracle": "test"}.get(self.select, self.select)
        return Scenario(rows, self.fraction)

    @property
    def reported(self) -> Scenario:
        """What the final runs are trained and scored on."""
        return Scenario("half-2" if self.select == "two-phase" else "test")

    @property
    def how(self) -> str:
        """How settings are chosen, in words."""
        of_domains = self.base.incremental == "domains"
        whose = "the train rows of each class of each domain" if of_domains else "each class's train rows"
        held_out = f"{self.fraction:.0%} of {whose} held out"
        leaks = f"; by batch routing, which {LEAKS}" if self.leaks else ""
        return {
            "val": f"chosen on {held_out}",
            "first-task": f"chosen on the first {'domain' if of_domains else 'task'} alone, {held_out}",
            "two-phase": "chosen on the first half of the classes",
            "test-oracle": ORACLE,
        }[self.select] + leaks

    @property
    def leaks(self) -> bool:
        """Whether any setting of the search, or the base setting, is scored by batch routing."""
        return BATCH_ROUTER in (self.base.router, *self.space.listed("router"))


@dataclass(frozen=True)
class Trial:
    """A point, the setting that it leads to, and its cells, one a seed."""

    point: Point
    config: TrainConfig
    cells: Sequence[Cell]

    @classmethod
    def of(cls, point: Point, request: SweepRequest, store: str) -> Trial:
        """The trial of a point; store: digest of the fingerprint of the store."""
        config = with_point(request.base, point)
        curve = request.metric not in LAST
        return cls(point, config, cells_of(config, request.seeds, request.searched, store, curve=curve))


@dataclass(frozen=True)
class Final:
    """A setting trained afresh on all train rows. metrics: {name: (mean, spread)} over the seeds that did not diverge."""

    name: str
    point: Point
    metrics: dict[str, tuple[float, float]]
    seeds: int
    lost: int


@dataclass
class Search:
    """The search itself: which settings are tried, and which is best so far."""

    request: SweepRequest
    runner: Runner
    trials: list[Trial] = field(default_factory=list)

    def run(self) -> None:
        """Tries settings until there are no more."""
        request, sampler = self.request, self.request.sampled()
        while points := sampler.ask(request.round):
            fresh = [Trial.of(point, request, self.runner.store) for point in points]
            self.trials += fresh
            self.runner.run_stage("search", [cell for trial in fresh for cell in trial.cells], self._say_best)
            scores = {id(scored.point): scored.mean for scored in self.scored()}
            sampler.tell(points, [scores.get(id(point)) for point in points])

    def scored(self) -> list[Scored]:
        """Settings all of whose seeds are known to be done and scored, best first; of equal ones the first tried."""
        found = []
        for trial in self.trials:
            values = [self.runner.known.get(cell.address, {}).get(self.request.metric) for cell in trial.cells]
            if None not in values:
                found.append(Scored(trial.point, trial.config, *mean_spread(values), len(values)))
        return sorted(found, key=lambda scored: -scored.mean)

    def best(self) -> Scored:
        """The best setting; raises `RunError` if not one has all its seeds done."""
        if scored := self.scored():
            return scored[0]
        raise RunError(
            "not one setting has finished on all its seeds",
            where=self.runner.ledger.path,
            remedy="look at the reasons on the page of tosca report, then mend the space",
        )

    def _say_best(self) -> str:
        """Tells, and returns, the best setting so far in words."""
        scored = self.scored()
        if scored:
            self.runner.reporter.on_best(scored[0].mean, scored[0].words())
        return scored[0].words() if scored else ""

    def final(self, name: str, point: Point, config: TrainConfig) -> Final:
        """Trains one setting on all train rows over the report's seeds, and scores it on the test rows."""
        cells = cells_of(config, self.request.report_seeds, self.request.reported, self.runner.store)
        self.runner.run_stage(f"report: {name}", cells)
        results = list(self.runner.results(cells).values())
        measured = (*REPORTED, *(FEW_SHOT if config.shots is not None else ()))
        values = {metric: [result.get(metric) for result in results] for metric in measured}
        metrics = {metric: mean_spread([v for v in found if v is not None]) for metric, found in values.items()}
        return Final(name, point, metrics, len(results), len(cells) - len(results))
