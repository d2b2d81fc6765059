"""How long cells will take: a few steps of each group are run on made-up numbers and timed."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import torch

from tosca_cache.devices import one_thread
from tosca_cache.luca.initialise import initial_head, initial_luca
from tosca_cache.luca.module import normalise
from tosca_cache.luca.parameters import Head, Luca, Parameters
from tosca_cache.sweep.plan import Group, Sizes
from tosca_cache.train.batches import epoch_batches
from tosca_cache.train.engines import Engine
from tosca_cache.train.settings import Settings
from tosca_cache.train.stack import Lane, Member

ROWS = 256  # made-up train rows, and made-up test rows
STEPS = 12


@dataclass(frozen=True)
class Estimate:
    """Seconds of all cells of a group in one process. train, score: of their two parts."""

    train: float
    score: float

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.train + self.score


def estimate(group: Group, engine: Engine, device: torch.device) -> Estimate:
    """Times a few steps at the mean number of classes, and the scoring of a few rows, and multiplies."""
    sizes = group.sizes
    classes = max(2, sum(sizes.classes) // len(sizes.classes))
    members = min(group.most, len(group.models))
    each = _step_seconds(group, engine, device, members, classes) / members
    at_a_time = engine.threads if engine.name == "native" else 1
    scored = _scoring_seconds(sizes, engine, classes, device) / at_a_time
    return Estimate(len(group.models) * sizes.steps * each, len(group.cells) * scored)


def _step_seconds(group: Group, engine: Engine, device: torch.device, members: int, classes: int) -> float:
    sizes = group.sizes
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(ROWS, 1, sizes.shape.dim, generator=generator).to(device)
    labels = (torch.arange(ROWS) % classes).to(device)
    epochs = -(-STEPS * sizes.batch // ROWS)
    batches = list(epoch_batches(ROWS, 0, epochs=epochs, batch_size=sizes.batch, seed=0, task=0))
    parameters = Parameters(sizes.shape, classes, models=members, device=device, dtype=torch.float32)
    parameters.set_luca(Luca(*(t.expand(members, *t.shape[1:]) for t in initial_luca(sizes.shape, 0, 0))))
    parameters.set_head(Head(*(t.expand(members, *t.shape[1:]) for t in initial_head(sizes.shape.dim, classes, 0))))
    stacked = [Member(Settings.of(cells[0].config)) for cells in group.models[:members]]
    stacked.sort(key=lambda member: (member.settings.flow, member.settings.optimizer))
    lane = Lane(features, labels, [batch._replace(epoch=0) for batch in batches])
    seconds = []
    for _ in range(2):  # the first one also pays for what happens once
        start = perf_counter()
        engine.fit(parameters, [lane], stacked)
        seconds.append(perf_counter() - start)
    return min(seconds) / len(batches)


@one_thread()
@torch.inference_mode()
def _scoring_seconds(sizes: Sizes, engine: Engine, classes: int, device: torch.device) -> float:
    """Every module meets every test row once, and then, after every task, every row of the classes seen the head."""
    rows = normalise(torch.randn(ROWS, sizes.shape.dim, device=device))
    directions = normalise(initial_head(sizes.shape.dim, classes, 0).weight[0].to(device))
    sigma = torch.ones(1, device=device)
    engine.entropy_and_prediction([rows], directions, sigma)
    start = perf_counter()
    engine.entropy_and_prediction([rows], directions, sigma)
    each = (perf_counter() - start) / ROWS / classes
    seen = 0
    total = 0
    for number, (test, stop) in enumerate(zip(sizes.test, sizes.classes, strict=True)):
        seen += test
        total += (number + 1) * seen * stop
    hidden = 2 * (sizes.shape.mlp_hidden + sizes.shape.se_hidden)
    adapted = len(sizes.classes) * seen * hidden  # as many products a row as a head of so many classes
    return each * (total + adapted)
