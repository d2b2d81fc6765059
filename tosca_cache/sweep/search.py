"""A search: rounds of settings, their scores, the choice, and fresh runs of what was chosen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tosca_cache.config import TrainConfig
from tosca_cache.errors import RunError
from tosca_cache.sweep.cells import FEW_SHOT, LAST, REPORTED, Cell, Scored, cells_of, mean_spread, with_point
from tosca_cache.sweep.request import SweepRequest
from tosca_cache.sweep.runner import Runner
from tosca_cache.sweep.scenario import Scenario
from tosca_cache.sweep.space import Point


@dataclass(frozen=True)
class Trial:
    """A point, the setting that it leads to, and its cells in every scenario of the search, one a seed."""

    point: Point
    config: TrainConfig
    cells: Mapping[Scenario, Sequence[Cell]]

    @classmethod
    def of(cls, point: Point, request: SweepRequest, store: str) -> Trial:
        """The trial of a point; store: digest of the fingerprint of the store."""
        config = with_point(request.base, point)
        curve = request.metric not in LAST
        cells = {s: cells_of(config, request.seeds, s, store, curve=curve) for s in request.searched}
        return cls(point, config, cells)


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
    """The search itself: which settings are tried, and which is best so far. whole: false if the time budget ended it."""

    request: SweepRequest
    runner: Runner
    trials: list[Trial] = field(default_factory=list)
    whole: bool = True

    def cells(self, trials: Sequence[Trial]) -> list[Cell]:
        """All cells of some trials, scenario by scenario and setting by setting."""
        return [cell for scenario in self.request.searched for trial in trials for cell in trial.cells[scenario]]

    def run(self) -> bool:
        """Tries settings until there are no more; false if the time budget ended it."""
        request, sampler = self.request, self.request.make_sampler()
        deadline = None if request.time_budget is None else time.monotonic() + request.time_budget
        while self.whole and (points := sampler.ask(request.round)):
            fresh = [Trial.of(point, request, self.runner.store) for point in points]
            self.trials += fresh
            self.whole = self.runner.run_stage(
                "search", self.cells(fresh), retry=request.retry, deadline=deadline, after_block=self._say_best
            )
            scores = {id(scored.point): scored.mean for scored in self.scored(trials=fresh)}
            sampler.tell(points, [scores.get(id(point)) for point in points])
        return self.whole

    def scored(self, scenario: Scenario | None = None, trials: Sequence[Trial] | None = None) -> list[Scored]:
        """Settings all of whose seeds are known to be done and scored, best first; of equal ones the first tried.

        Arguments:
            scenario: whose scores count; the first, which decides, if None.
            trials: only these.
        """
        known, found = self.runner.known, []
        scenario = scenario or self.request.searched[0]
        for trial in self.trials if trials is None else trials:
            cells = trial.cells[scenario]
            if all(cell.address in known for cell in cells):
                values = [known[cell.address][self.request.metric] for cell in cells]
                if None not in values:
                    found.append(Scored(trial.point, trial.config, *mean_spread(values), len(values)))
        return sorted(found, key=lambda scored: -scored.mean)

    def best(self, scenario: Scenario | None = None) -> Scored:
        """The best setting; raises `RunError` if not one has all its seeds done."""
        scored = self.scored(scenario)
        if not scored and not self.whole:
            raise RunError(
                "the time budget ended the search before one setting had finished on all its seeds",
                where="--time-budget",
                remedy="give it more time; what has finished is kept",
            )
        if not scored:
            raise RunError(
                "not one setting has finished on all its seeds",
                where=self.runner.ledger.path,
                remedy="look at the reasons on the page of tosca report, then mend the space, or add --retry",
            )
        return scored[0]

    def _say_best(self) -> str:
        """Tells, and returns, the best setting so far in words."""
        scored = self.scored()
        if scored:
            self.runner.reporter.on_best(scored[0].mean, scored[0].words())
        return scored[0].words() if scored else ""


def run_final(name: str, request: SweepRequest, runner: Runner, point: Point, config: TrainConfig) -> Final:
    """Trains one setting on all train rows over the report's seeds, and scores it on the test rows."""
    cells = cells_of(config, request.report_seeds, request.reported, runner.store)
    runner.run_stage(f"report: {name}", cells, retry=request.retry)
    results = list(runner.results(cells).values())
    few_shot = [metric for metric in FEW_SHOT if any(metric in result for result in results)]
    values = {metric: [result.get(metric) for result in results] for metric in (*REPORTED, *few_shot)}
    metrics = {metric: mean_spread([v for v in found if v is not None]) for metric, found in values.items()}
    return Final(name, point, metrics, len(results), len(cells) - len(results))
