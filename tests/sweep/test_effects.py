"""What a page tells of a ledger: ranking and main effects, compared with plain arithmetic."""

import itertools
import json
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.sweep.effects import best_settings, groups, main_effects, scored_on, varying_keys
from tosca_cache.sweep.ledger import DIVERGED, DONE, FAILED, LedgerCell


def cell(setting, score=None, seed=1993, *, state=DONE, store="s", number=0, **select):
    content = {"setting": setting, "seed": seed, "select": {"rows": "val"} | select, "store": store, "arithmetic": 1}
    address = f"{json.dumps(content, sort_keys=True)}{number}"
    result = {"score": score, "R": [[1.0]], "seconds": {"train": 0.1}} if state == DONE else None
    return LedgerCell(address, content, state, result, None if state == DONE else "why", 1)


GRID = [
    cell({"lr": lr, "l1": l1, "flow": "tosca"}, 100 * lr - l1 + 0.01 * (seed - 1993), seed)
    for lr in (0.1, 0.01)
    for l1 in (0.5, 0.25, 0.125)
    for seed in (1994, 1993)
]


def test_best_settings_and_main_effects_of_a_grid():
    best = best_settings(GRID, "score")
    assert len(best) == 6 and best_settings(GRID, "last_accuracy") == []
    assert [row.point for row in best[:3]] == [{"l1": l1, "lr": 0.1} for l1 in (0.125, 0.25, 0.5)]
    assert (best[0].mean, best[0].spread, best[0].seeds) == (pytest.approx(9.88), pytest.approx(0.01 / math.sqrt(2)), 2)
    effects = main_effects(GRID, "score")
    assert {effect.key: effect.reach for effect in effects} == {"lr": pytest.approx(9.0), "l1": pytest.approx(0.375)}
    low, high = effects[0].levels
    assert (low.label, low.n, high.label) == ("0.01", 6, "0.1"), "the furthest reach first, levels ascend"
    scores = [c.result["score"] for c in GRID if c.content["setting"]["lr"] == 0.1]
    expected = statistics.fmean(scores), statistics.stdev(scores), max(scores)
    assert (high.mean, high.spread, high.best) == pytest.approx(expected)
    (row,) = best_settings([GRID[0]], "score")
    assert (row.point, row.seeds) == ({}, 1) and math.isnan(row.spread), "one seed has no spread, one setting no key"
    assert main_effects([GRID[0]], "score") == best_settings([], "score") == main_effects([], "score") == groups([])


def test_what_is_not_finished_does_not_count_and_what_diverged_for_a_seed_comes_last():
    other = {"l1": 0.5, "flow": "tosca"}
    cells = [
        *GRID,
        cell({"lr": 0.5} | other, 99.0),
        cell({"lr": 0.5} | other, seed=1994, state=DIVERGED),
        cell({"lr": 1.0} | other, seed=1994, state=DIVERGED),
        *(cell({"lr": 2.0} | other, None), cell({"lr": 3.0} | other, state="open")),
        cell({"lr": 4.0} | other, state=FAILED),
    ]
    best = best_settings(cells, "score")
    assert best == best_settings(random.Random(1).sample(cells, len(cells)), "score"), "whatever the order"
    assert best[-1].mean == 99.0 and best[-1].diverged and best[0].seconds == pytest.approx(0.1)
    assert len(best) == 7
    by_key = {effect.key: effect for effect in main_effects(cells, "score")}
    assert [(level.label, level.n) for level in by_key["lr"].levels] == [("0.01", 6), ("0.1", 6), ("0.5", 1)]


def test_a_conditional_key_has_an_effect_only_where_it_stands():
    sgd = {"optimizer": "sgd", "milestones": [5, 9]}
    cells = [cell({"optimizer": "adam"}, 1.0), *(cell(sgd | {"momentum": m}, m) for m in (0.5, 0.9))]
    assert varying_keys(cells) == ["optimizer", "milestones", "momentum"]
    effects = {effect.key: effect for effect in main_effects(cells, "score")}
    assert set(effects) == {"optimizer", "momentum"}
    assert sum(level.n for level in effects["momentum"].levels) == 2
    best = [row.point for row in best_settings(cells, "score")][:2]
    assert best == [{"optimizer": "adam"}, {"optimizer": "sgd", "milestones": [5, 9], "momentum": 0.9}]


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


def test_groups_are_never_mixed_and_say_what_they_were_scored_on():
    others = [cell({"lr": 0.1}, 50.0, rows="test"), cell({"lr": 0.1}, 60.0, store="t")]
    others += [cell({"lr": 0.1}, 70.0, incremental="domains", fraction=0.2, evaluated="last")]
    found = groups([*GRID, *others])
    assert [(group.store, len(group.cells)) for group in found] == [("s", 12), ("s", 1), ("t", 1), ("s", 1)]
    said = scored_on(found[3].select)
    assert said == "each domain a task, after the last task, scored on 20% of the train rows, held out"
