"""A whole sweep: rounds of points, the choice, and the report on fresh runs of what was chosen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from tosca_cache.config import TrainConfig
from tosca_cache.errors import RunError
from tosca_cache.sweep.cells import Cell, cells_of
from tosca_cache.sweep.request import REPORTED, SweepRequest
from tosca_cache.sweep.run_cells import Runner
from tosca_cache.sweep.scenario import Scenario
from tosca_cache.sweep.space import Point
from tosca_cache.sweep.space.samplers import GridSampler, Sampler, make_sampler
from tosca_cache.sweep.trials import Scored, Trial, distinct, mean_spread

IN_VAIN = 100  # points in a row that differ from earlier ones in no key that counts: there may be endlessly many


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
    scenario: Scenario
    trials: list[Trial] = field(default_factory=list)
    whole: bool = True

    def cells(self, trials: Sequence[Trial]) -> list[Cell]:
        """All cells of some trials, scenario by scenario and setting by setting."""
        return [cell for scenario in self.request.searched for trial in trials for cell in trial.cells[scenario]]

    def run(self) -> bool:
        """Tries points until there are no more; false if the time budget ended it."""
        request = self.request
        deadline = None if request.time_budget is None else time.monotonic() + request.time_budget
        for points in self.rounds():
            fresh = [Trial.of(point, request, self.runner.store) for point in points]
            self.trials += fresh
            cells = self.cells(fresh)
            if request.retry:
                self.runner.ledger.retry([cell.address for cell in cells])
            self.runner.reporter.on_stage("search", len(cells), self.runner.finished(cells))
            self.runner.results(cells)
            self._say_best()
            self.whole = self.runner.run_cells(cells, deadline=deadline, after_block=self._say_best)
            self._tell(fresh)
            self._say_best()
            if not self.whole:
                break
        return self.whole

    def rounds(self) -> Iterator[list[Point]]:
        """Rounds of points: all of a grid or of counted random draws at once, otherwise `round_size` at a time."""
        request = self.request
        self.sampler: Sampler = make_sampler(
            request.sampler,
            request.space,
            trials=request.trials,
            seed=request.sampler_seed,
            base=asdict(request.base),
        )
        left = None if request.max_cells is None else request.max_cells // len(request.seeds) // len(request.searched)
        vain = 0
        everything = isinstance(self.sampler, GridSampler) or (request.sampler == "random" and request.trials)
        while left is None or left > 0:
            size = 10**6 if everything else request.round_size
            asked = self.sampler.ask(size if left is None else min(size, left))
            points = distinct(asked, [trial.point for trial in self.trials], request.base)
            vain = 0 if points else vain + len(asked)
            if not asked or vain > IN_VAIN:
                return
            if points:
                left = None if left is None else left - len(points)
                yield points

    def _tell(self, trials: Sequence[Trial]) -> None:
        self.runner.results(self.cells(trials))
        scores = {id(scored.point): scored.mean for scored in self.scored(self.scenario, trials)}
        self.sampler.tell([trial.point for trial in trials], [scores.get(id(trial.point)) for trial in trials])

    def scored(self, scenario: Scenario, trials: Sequence[Trial] | None = None) -> list[Scored]:
        """Settings all of whose seeds are known to be done and scored, best first; of equal ones the first tried."""
        known, found = self.runner.known, []
        for trial in self.trials if trials is None else trials:
            cells = trial.cells[scenario]
            if all(cell.address in known for cell in cells):
                values = [known[cell.address][self.request.metric] for cell in cells]
                if None not in values:
                    found.append(Scored(trial.point, trial.config, *mean_spread(values), len(values)))
        return sorted(found, key=lambda scored: -scored.mean)

    def best(self, scenario: Scenario) -> Scored:
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
                remedy="look at the reasons with: tosca sweep show, then mend the space, or add --retry",
            )
        return scored[0]

    def _say_best(self) -> None:
        if scored := self.scored(self.scenario):
            self.runner.reporter.on_best(scored[0].words())


def run_final(name: str, request: SweepRequest, runner: Runner, point: Point, config: TrainConfig) -> Final:
    """Trains one setting on all train rows over the report's seeds, and scores it on the test rows."""
    cells = cells_of(config, request.report_seeds, request.reported, runner.store)
    if request.retry:
        runner.ledger.retry([cell.address for cell in cells])
    runner.reporter.on_stage(f"report: {name}", len(cells), runner.finished(cells))
    runner.run_cells(cells)
    results = list(runner.results(cells).values())
    metrics = {
        metric: mean_spread([result[metric] for result in results if result[metric] is not None]) for metric in REPORTED
    }
    return Final(name, point, metrics, len(results), len(cells) - len(results))
