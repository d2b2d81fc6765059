"""Getting cells finished: what the ledger knows is not run again, what another process runs is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from tosca_cache.sweep.cells import Cell
from tosca_cache.sweep.execute import Block, Executor
from tosca_cache.sweep.ledger import DIVERGED, DONE, FAILED, OPEN, RUNNING, Finished, Ledger
from tosca_cache.sweep.plan import plan_groups
from tosca_cache.sweep.request import METRICS, REPORTED
from tosca_cache.sweep.scenario import Data
from tosca_cache.train.engines import Engine

FINISHED = (DONE, DIVERGED, FAILED)
POLL = 0.5  # seconds between two looks at cells that another process is running


class SweepReporter(Protocol):
    """Is told how a sweep goes on."""

    def on_stage(self, name: str, cells: int, finished: int) -> None:
        """A stage begins: so many cells, of which so many were finished before."""

    def on_finished(self, finished: Sequence[Finished]) -> None:
        """Cells were run and are in the ledger."""

    def on_task(self, done: int, tasks: int) -> None:
        """The running block has learned so many of its tasks."""

    def on_best(self, text: str) -> None:
        """The best setting so far, in words."""

    def on_note(self, text: str) -> None:
        """Something that the user should know."""


class Silent:
    """Reports nothing."""

    def on_stage(self, name: str, cells: int, finished: int) -> None:
        """Says nothing."""

    def on_finished(self, finished: Sequence[Finished]) -> None:
        """Says nothing."""

    def on_task(self, done: int, tasks: int) -> None:
        """Says nothing."""

    def on_best(self, text: str) -> None:
        """Says nothing."""

    def on_note(self, text: str) -> None:
        """Says nothing."""


@dataclass
class Runner:
    """Cells of one store, a ledger, and what runs them.

    jobs: blocks that are trained at the same time.
    known: results of cells that are done, by address, as far as they were asked for: reading them from the ledger again
        after every block would cost more than the block.
    """

    data: Data
    store: str
    executor: Executor
    engine: Engine
    device: torch.device
    ledger: Ledger
    reporter: SweepReporter = field(default_factory=Silent)
    jobs: int = 1
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run_cells(
        self,
        cells: Sequence[Cell],
        *,
        deadline: float | None = None,
        after_block: Callable[[], None] | None = None,
    ) -> bool:
        """Returns when every cell is finished, or false when the deadline has passed before.

        Arguments:
            deadline: of `time.monotonic`, after which no further block begins.
            after_block: called after every block that was run.

        Raises what a worker raises; cells that were begun and not finished are then open again.
        """
        by_address = {cell.address: cell for cell in cells}
        self.ledger.add((address, cell.content) for address, cell in by_address.items())
        noted = False
        try:
            while left := self._unfinished(by_address):
                if not self._run(left, deadline, after_block):
                    return False
                if others := self._unfinished(by_address):
                    if not noted:
                        self.reporter.on_note(f"waiting for {len(others)} cells that another process is running")
                        noted = True
                    time.sleep(POLL)
                    if deadline is not None and time.monotonic() > deadline:
                        return False
        finally:
            self.ledger.release()
        return True

    def _unfinished(self, by_address: dict[str, Cell]) -> list[Cell]:
        left = {c.address for state in (OPEN, RUNNING) for c in self.ledger.cells(list(by_address), state=state)}
        return [cell for address, cell in by_address.items() if address in left]

    def _run(self, cells: Sequence[Cell], deadline: float | None, after_block: Callable[[], None] | None) -> bool:
        """Runs all of these that nobody else is running; false if the deadline passes first."""
        groups = plan_groups(cells, self.data, self.engine, self.device, jobs=self.jobs)
        blocks = [block for group in groups for block in group.blocks]
        wave = self.executor.wave
        for start in range(0, len(blocks), wave):
            if deadline is not None and time.monotonic() > deadline:
                return False
            mine = self._claim(blocks[start : start + wave])
            for finished in self.executor.run(mine):
                self.ledger.record(finished)
                self.known |= {f.address: dict(f.result) for f in finished if f.state == DONE and f.result is not None}
                self.reporter.on_finished(finished)
                if after_block is not None:
                    after_block()
        return True

    def _claim(self, blocks: Sequence[Block]) -> list[Block]:
        """The blocks, without the cells that another process has taken or finished meanwhile."""
        taken = set(self.ledger.claim([cell.address for block in blocks for cell in block]))
        kept = [tuple(cell for cell in block if cell.address in taken) for block in blocks]
        return [block for block in kept if block]

    def finished(self, cells: Sequence[Cell]) -> int:
        """How many of these are finished already."""
        counts = self.ledger.counts([cell.address for cell in cells])
        return sum(counts[state] for state in FINISHED)

    def results(self, cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
        """What was measured of those cells that are done, by address."""
        asked = [cell.address for cell in cells]
        if unknown := [address for address in asked if address not in self.known]:
            found = self.ledger.cells(unknown, state=DONE, needs=(*METRICS, *REPORTED))
            self.known |= {cell.address: cell.result for cell in found if cell.result is not None}
        return {address: self.known[address] for address in asked if address in self.known}
