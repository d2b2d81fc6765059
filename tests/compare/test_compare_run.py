"""Comparisons through Python: the table, the ledger behind it, and learners that fail side by side."""

import json
from dataclasses import replace

import numpy as np
import pytest

import tosca_cache as tosca
from tosca_cache.compare.cells import CompareRequest, cells_of
from tosca_cache.compare.estimate import estimate
from tosca_cache.compare.run import run_compare
from tosca_cache.config import TrainConfig
from tosca_cache.evaluate.metrics import average_accuracy, last_accuracy
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.learners.simplecil import SimpleCil
from tosca_cache.report.compare import comparison
from tosca_cache.sweep.ledger import Ledger

TRAINING = {"epochs": 2, "batch_size": 8, "mlp_ratio": 4, "se_ratio": 4}
QUICK = {"increment": 2} | TRAINING


@pytest.fixture
def store(make_store, tmp_path, monkeypatch):
    """A store; the learner `half` is there, too."""
    monkeypatch.setitem(LEARNERS, "half", Half)
    return make_store(tmp_path / "store", noise=2.0)


class Half(SimpleCil):
    """Side by side it fails; alone it fails with one seed only."""

    name, source = "half", "a test"

    @classmethod
    def observe_together(cls, learners, tasks):
        raise MemoryError("does not fit")

    def observe(self, task, *, on_epoch=None):
        if self.seed == 2:
            raise RuntimeError("seed 2 never works")
        super().observe(task)


def test_the_numbers_are_those_of_the_protocol(store):
    table = tosca.compare(store, ["simplecil", "tosca"], seeds=[5, 6], **QUICK)
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    rows = {row["method"]: row for row in table["rows"]}
    for seed in (5, 6):
        stream = tosca.task_stream(store, increment=2, seed=seed)
        outcome = run_protocol(SimpleCil(seed=seed), stream)
        found = rows["simplecil"]["seeds"][str(seed)]
        assert found["average_accuracy"] == pytest.approx(average_accuracy(outcome.R, outcome.counts))
        assert found["last_accuracy"] == pytest.approx(last_accuracy(outcome.R, outcome.counts))
        assert found["stored_numbers"] == 6 * (12 + 1) and found["trainable_parameters"] == 0
        assert found["train_seconds"] > 0 and found["milliseconds"] > 0
        trained = tosca.train(stream, seed=seed, router="sample", **TRAINING).outcome
        found = rows["tosca"]["seeds"][str(seed)]
        assert found["last_accuracy"] == pytest.approx(last_accuracy(trained.R, trained.counts))
    values = [rows["tosca"]["seeds"][s]["last_accuracy"] for s in ("5", "6")]
    found = rows["tosca"]["values"]["last_accuracy"]
    assert (found["mean"], found["spread"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_an_estimate_is_of_what_is_left(store, tmp_path):
    ledger = tmp_path / "l.sqlite"
    request = CompareRequest(TrainConfig(**QUICK), ("simplecil", "tosca", "half"), (1, 2))
    before = estimate(request, store, ledger)
    assert (before.cells, before.finished, before.untimed) == (6, 0, ("half",)) and before.seconds > 0
    assert not ledger.exists()
    request = replace(request, methods=("simplecil", "tosca"))
    run_compare(request, store, ledger)
    after = estimate(request, store, ledger)
    assert (after.cells, after.finished, after.seconds) == (4, 4, 0)


def test_addresses_depend_on_what_decides_the_numbers():
    def address(method="tosca", store="s", seed=1, options=None, **config):
        request = CompareRequest(TrainConfig(**config), (method,), (seed,), {method: options or {}})
        return cells_of(request, method, store)[0].address

    same = {address(), address(device="cpu"), address(engine="torch"), address(seeds=(3,)), address(init_cls=10)}
    assert same == {address(options={"router": "sample"})}
    others = [
        *(address("simplecil"), address(store="t"), address(seed=2), address(shots=5), address(increment=5)),
        *(address(lr=0.1), address(shuffle=False), address(router="lda"), address(options={"router": "margin"})),
    ]
    assert len({*others, *same}) == len(others) + 1
    assert address(router="lda") == address(options={"router": "lda"})
    assert address("simplecil", router="lda") == address("simplecil"), "it has no router"


def test_what_fails_side_by_side_is_tried_alone(store, tmp_path):
    table = tosca.compare(store, ["half", "simplecil"], seeds=[1, 2, 3], ledger=tmp_path / "l.sqlite", **QUICK)
    half, other = sorted(table["rows"], key=lambda row: row["method"])
    assert list(half["seeds"]) == ["1", "3"] and list(half["failed"]) == ["2"]
    assert "RuntimeError: seed 2 never works" in half["failed"]["2"]
    expected = np.mean([other["seeds"][seed]["last_accuracy"] for seed in ("1", "3")])
    assert half["values"]["last_accuracy"]["mean"] == pytest.approx(expected)
    with Ledger.open(tmp_path / "l.sqlite") as book:
        assert sorted(cell.state for cell in book.cells()) == ["done"] * 5 + ["failed"]
    (line,) = comparison(tosca.compare(store, ["half"], seeds=[2], **QUICK)).lines
    assert [entry.text for entry in line.entries] == ["-"] * 7 and line.name == "half [1]", "a line without numbers"
