"""What `tosca sweep show` tells of a ledger: ranking, main effects, exports; compared with plain arithmetic."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.sweep.effects import best_settings, groups, main_effects, to_csv, to_json, varying_keys
from tosca_cache.sweep.ledger import DIVERGED, DONE, FAILED, OPEN, Finished, Ledger, LedgerCell


def cell(setting, score=None, seed=1993, *, state=DONE, store="s", select="val", number=0):
    content = {"setting": setting, "seed": seed, "select": {"rows": select}, "store": store, "arithmetic": 1}
    address = f"{json.dumps(content, sort_keys=True)}{number}"
    result = {"score": score, "R": [[1.0]], "seconds": {"train": 0.1}} if state == DONE else None
    return LedgerCell(address, content, state, result, None if state == DONE else "why", 1)


GRID = [
    cell({"lr": lr, "l1": l1, "flow": "tosca"}, 100 * lr - l1 + 0.01 * (seed - 1993), seed)
    for lr in (0.1, 0.01)
    for l1 in (0.5, 0.25, 0.125)
    for seed in (1994, 1993)
]


def test_best_settings_of_a_grid():
    best = best_settings(GRID, "score")
    assert best_settings(GRID, "last_accuracy") == []
    assert [row.point for row in best[:3]] == [{"l1": l1, "lr": 0.1} for l1 in (0.125, 0.25, 0.5)]
    assert best[0].mean == pytest.approx(9.88)
    assert best[0].spread == pytest.approx(0.01 / math.sqrt(2))
    assert best[0].seeds == 2
    assert len(best) == 6


def test_one_seed_has_no_spread_and_one_setting_no_varying_key():
    (row,) = best_settings([GRID[0]], "score")
    assert (row.point, row.seeds) == ({}, 1)
    assert math.isnan(row.spread)
    assert main_effects([GRID[0]], "score") == []
    assert best_settings([], "score") == main_effects([], "score") == groups([]) == []


def test_a_setting_that_diverged_for_a_seed_comes_after_those_that_did_not():
    cells = [
        *GRID,
        cell({"lr": 0.5, "l1": 0.5, "flow": "tosca"}, 99.0),
        cell({"lr": 0.5, "l1": 0.5, "flow": "tosca"}, seed=1994, state=DIVERGED),
        cell({"lr": 1.0, "l1": 0.5, "flow": "tosca"}, seed=1994, state=DIVERGED),
    ]
    best = best_settings(cells, "score")
    assert best == best_settings(random.Random(1).sample(cells, len(cells)), "score"), "whatever the order"
    assert best[-1].mean == 99.0 and best[-1].diverged and best[0].seconds == pytest.approx(0.1)
    assert len(best) == 7
    by_key = {effect.key: effect for effect in main_effects(cells, "score")}
    assert [(level.label, level.n) for level in by_key["lr"].levels] == [("0.01", 6), ("0.1", 6), ("0.5", 1)]


def test_main_effects_of_a_grid():
    effects = main_effects(GRID, "score")
    assert [effect.key for effect in effects] == ["lr", "l1"]
    assert effects[0].reach == pytest.approx(9.0)
    assert effects[1].reach == pytest.approx(0.375)
    low, high = effects[0].levels
    assert (low.label, low.n, high.label) == ("0.01", 6, "0.1")
    scores = [c.result["score"] for c in GRID if c.content["setting"]["lr"] == 0.1]
    assert (high.mean, high.spread) == pytest.approx((statistics.fmean(scores), statistics.stdev(scores)))
    assert high.best == max(scores)


def test_unfinished_failed_and_unscored_cells_do_not_count():
    cells = [
        cell({"lr": 0.1}, 5.0),
        cell({"lr": 0.2}, None),
        cell({"lr": 0.3}, state=OPEN),
        cell({"lr": 0.4}, state=FAILED),
    ]
    assert [row.point for row in best_settings(cells, "score")] == [{"lr": 0.1}]
    assert main_effects(cells, "score") == []


def test_a_conditional_key_has_an_effect_only_where_it_stands():
    cells = [cell({"optimizer": "adam"}, 1.0)] + [
        cell({"optimizer": "sgd", "momentum": momentum, "milestones": [5, 9]}, momentum) for momentum in (0.5, 0.9)
    ]
    assert varying_keys(cells) == ["optimizer", "milestones", "momentum"]
    effects = {effect.key: effect for effect in main_effects(cells, "score")}
    assert set(effects) == {"optimizer", "momentum"}
    assert sum(level.n for level in effects["momentum"].levels) == 2
    assert [row.point for row in best_settings(cells, "score")][:2] == [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "milestones": [5, 9], "momentum": 0.9},
    ]


@given(st.lists(st.integers(0, 40), min_size=20, max_size=60))
def test_many_values_are_shown_in_ranges_that_part_the_cells(values):
    cells = [cell({"epochs": value}, float(value), number=number) for number, value in enumerate(values)]
    effects = main_effects(cells, "score")
    levels = effects[0].levels if effects else ()
    assert sum(level.n for level in levels) == (len(values) if len(set(values)) > 1 else 0)
    assert len(levels) <= (4 if len(set(values)) > 8 else 8)
    ends = [[float(end) for end in level.label.split(" … ")] for level in levels]
    assert all(before[-1] < after[0] for before, after in itertools.pairwise(ends))
    for level, end in zip(levels, ends, strict=True):
        inside = [value for value in values if end[0] <= value <= end[-1]]
        assert (level.n, level.mean, level.best) == (len(inside), pytest.approx(statistics.fmean(inside)), max(inside))


def test_groups_are_never_mixed():
    other = [cell({"lr": 0.1}, 50.0, select="test"), cell({"lr": 0.1}, 60.0, store="t")]
    mixed = [*GRID, *other]
    assert [(group.store, group.select, len(group.cells)) for group in groups(mixed)] == [
        ("s", {"rows": "val"}, 12),
        ("s", {"rows": "test"}, 1),
        ("t", {"rows": "val"}, 1),
    ]


def test_csv_has_one_row_a_cell_and_every_key():
    cells = [
        cell({"lr": 0.1, "milestones": [1, 2]}, 5.5),
        cell({"lr": 0.2, "shuffle": True}, state=FAILED, store="t"),
        replace(cell({"lr": 0.3}, state=DIVERGED), reason='loss, "NaN"\nat step 3'),
    ]
    rows = list(csv.DictReader(io.StringIO(to_csv(cells))))
    assert [row["address"] for row in rows] == [c.address for c in cells]
    assert [row["lr"] for row in rows] == ["0.1", "0.2", "0.3"]
    assert rows[0]["milestones"] == "[1, 2]"
    assert rows[1]["shuffle"] == "true"
    assert [row["score"] for row in rows] == ["5.5", "", ""]
    assert rows[2]["reason"] == 'loss, "NaN"\nat step 3'
    assert rows[1]["store"] == "t"
    assert json.loads(rows[0]["select"]) == {"rows": "val"}
    assert "R" not in rows[0]


def test_json_of_a_real_ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger") as ledger:
        ledger.add([(c.address, c.content) for c in GRID])
        ledger.claim([GRID[0].address])
        ledger.record([Finished(GRID[0].address, DONE, {"score": None, "R": [[1.0, None]]})])
        found = json.loads(to_json(ledger.cells()))
    assert [row["address"] for row in found] == [c.address for c in GRID]
    assert found[0]["result"] == {"score": None, "R": [[1.0, None]]}
    assert found[1]["state"] == "open"


def test_a_spreadsheet_computes_nothing_of_a_ledger():
    hostile = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "＝x"]
    cells = [cell({"=key": text, "lr": -0.5}, -1.5, store=text) for text in hostile]
    rows = list(csv.DictReader(io.StringIO(to_csv(cells))))
    for row, text in zip(rows, hostile, strict=True):
        assert row["'=key"] == row["store"] == "'" + text.replace("\r", "\\u000d")
        assert (float(row["lr"]), float(row["score"])) == (-0.5, -1.5)
