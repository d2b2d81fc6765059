"""Groups of one shape, blocks that fit into memory, and what becomes of a block that does not."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sweep_help import QUICK, cell_of, make_data

from tosca_cache.closed_form.lda import Lda
from tosca_cache.sweep.block import run_block
from tosca_cache.sweep.plan import plan_groups
from tosca_cache.train.engines import Engine

CPU = torch.device("cpu")
SHAPES = {
    **{"mlp_ratio": [2, 4], "se_ratio": [3, 4], "epochs": [1, 2], "batch_size": [4, 8]},
    **{"increment": [1, 2, 3], "init_cls": [None, 1], "shuffle": [True, False]},
}
OTHERS = {
    **{"lr": [0.01, 0.02], "l1": [0.0, 1e-3], "weight_decay": [0.0, 1e-3], "momentum": [0.0, 0.9]},
    **{"scheduler": ["cosine", "constant"], "optimizer": ["sgd", "adam", "adamw"]},
    "flow": ["tosca", "tosca_r", "adapter", "calibrator"],
}
SETTING = st.fixed_dictionaries({}, optional={key: st.sampled_from(found) for key, found in (SHAPES | OTHERS).items()})
CELLS = st.lists(
    st.tuples(SETTING, st.integers(1, 3), st.sampled_from(["val", "test", "half-1"])), min_size=1, max_size=12
)


@dataclass(frozen=True)
class Recording(Engine):
    """An engine that has room for `most` models, fails with one setting, and remembers its lanes and models."""

    most: int = 10**6
    error: type[BaseException] = MemoryError
    given: list[tuple[int, int]] = field(default_factory=list)

    def fit(self, parameters, lanes, members, *, on_epoch=None):
        self.given.append((len(lanes), len(members)))
        if len(members) > self.most:
            raise self.error("no room")
        if any(member.settings.lr == 0.666 for member in members):
            raise RuntimeError("a kernel is broken")
        return super().fit(parameters, lanes, members, on_epoch=on_epoch)


def measured(finished):
    """Results by address, without their times."""
    return {
        cell.address: {name: value for name, value in cell.result.items() if name not in ("seconds", "engine")}
        for cell in finished
        if cell.state == "done"
    }


@given(
    mixture=CELLS,
    memory=st.none() | st.integers(0, 2**23),
    jobs=st.integers(1, 3),
    engine=st.builds(Engine, st.sampled_from(["torch", "native"]), st.integers(1, 3)),
)
def test_every_cell_is_in_one_block_of_its_own_shape(mixture, memory, jobs, engine):
    """And what changes no shape makes no group."""
    cells = [cell_of(replace(QUICK, **setting), seed, rows) for setting, seed, rows in mixture]
    groups = plan_groups(cells, make_data(), engine, CPU, memory=memory, jobs=jobs)
    assert sorted(cell.address for g in groups for b in g.blocks for cell in b) == sorted(c.address for c in cells)
    shapes = [{(c.scenario, *(getattr(c.config, key) for key in SHAPES)) for c in g.cells} for g in groups]
    assert all(len(found) == 1 for found in shapes)
    assert len(set().union(*shapes)) == len(groups)
    for group, ((_, *shape),) in zip(groups, shapes, strict=True):
        assert group.describe().items() >= dict(zip(SHAPES, shape, strict=True)).items()
        models = [{cell.trained for cell in block} for block in group.blocks]
        assert 1 <= min(map(len, models)) <= max(map(len, models)) <= group.most
        assert max(map(len, models)) - min(map(len, models)) <= 1
        assert len(set().union(*models)) == sum(map(len, models))  # no model is trained in two blocks
        assert group.bytes > 0 and (memory is None or group.most == 1 or group.bytes <= memory // jobs)


@pytest.mark.parametrize(("memory", "most"), [(0, 1), (2**40, 32)])
def test_a_block_is_no_larger_than_memory_allows_nor_than_pays(memory, most):
    cells = [cell_of(QUICK, seed) for seed in range(40)]
    (group,) = plan_groups(cells, make_data(), Engine("native", 8), CPU, memory=memory)
    assert (group.most, len(group.blocks)) == (most, -(-40 // most))


@pytest.mark.parametrize("threads", [1, 2])
def test_cells_of_a_block_share_what_they_can_and_give_what_each_gives_alone(monkeypatch, threads):
    """One copy of a seed's features, one training of a setting, and one of each classifier that needs no modules."""
    data, routers = make_data(noise=2.5), ("lda", "mixture", "pool", "mixture-adapted", "sample")
    cells = [cell_of(replace(QUICK, lr=lr, router=r), seed) for r in routers for lr in (0.01, 0.3) for seed in (1, 2)]
    (group,) = plan_groups(cells, data, Engine("native", 1), CPU)
    assert sorted(map(len, group.blocks)) == [20]
    alone = measured([finished for cell in cells for finished in run_block([cell], data, Engine("native"))])
    engine, learned, seen, observe = Recording("native", threads), [], [], Lda.observe
    monkeypatch.setattr(Lda, "observe", lambda self, x, *rest: learned.append(len(x)) or observe(self, x, *rest))
    found = run_block(group.blocks[0], data, engine, on_task=lambda done, tasks: seen.append((done, tasks)))
    assert measured(found) == alone
    assert engine.given == [(2, 4)] * 3 and seen == [(0, 3), (1, 3), (2, 3)]
    assert len(learned) == 2 * 3 * 4  # seeds, tasks, and LDA with and without views on a trial and for good
    assert len({tuple(map(tuple, result["R"])) for result in alone.values()}) > 2  # routers do differ


@pytest.mark.parametrize(
    ("error", "most"), [(MemoryError, 1), (torch.OutOfMemoryError, 2), (torch.OutOfMemoryError, 3), (MemoryError, 7)]
)
def test_what_does_not_fit_is_split_until_it_does(error, most):
    data = make_data()
    cells = [cell_of(replace(QUICK, lr=lr), seed, "val") for lr in (0.01, 0.02, 0.03, 0.04) for seed in (1, 2)]
    tight = Recording("native", most=most, error=error)
    found = run_block(cells, data, tight)
    assert [(cell.address, cell.state) for cell in found] == [(cell.address, "done") for cell in cells]
    assert measured(found) == measured(run_block(cells, data, Engine("native")))
    assert max(models for _, models in tight.given) == 8


def test_a_cell_that_fails_harms_no_other():
    data = make_data()
    (alone,) = run_block([cell_of(QUICK)], data, Recording(most=0))
    assert (alone.state, alone.reason) == ("failed", "MemoryError: no room"), "it does not fit even alone"
    cells = [cell_of(replace(QUICK, lr=lr)) for lr in (0.01, 0.02, 0.666, 0.03, 0.04)]
    found = run_block(cells, data, Recording("native"))
    assert [cell.reason for cell in found] == [None, None, "RuntimeError: a kernel is broken", None, None]
    good = [cell for cell in cells if cell.config.lr != 0.666]
    assert measured(found) == measured(run_block(good, data, Engine("native")))
