"""Samplers: grid, random and TPE in rounds, over conditional spaces, with the same points for the same seed."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from campaign import times
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.config import resolve
from tosca_cache.errors import ConfigError, UsageError
from tosca_cache.sweep.space import Point, Space, grid, parse_set
from tosca_cache.sweep.space.samplers import SAMPLERS, Sampler, make_sampler

Objective = Callable[[Point], float | None]

MIXED = parse_set(
    [
        "lr=log:0.001:1",
        "l1=1e-4,5e-4,1e-3",
        "epochs=int:5:31:5",
        "optimizer=sgd,adam",
        "momentum=lin:0.5:0.95@optimizer=sgd",
        "weight_decay=0,1e-4@optimizer=adam",
        "scheduler=cosine,steplr",
        "milestones=10+15,5+10@scheduler=steplr",
        "init_cls=increment,20",
    ]
)
FINITE = parse_set(["l1=1e-4,5e-4,1e-3", "epochs=int:5:15:5", "optimizer=sgd,adam", "momentum=0.8,0.9@optimizer=sgd"])


def nothing(point: Point) -> float | None:
    """Every training fails."""
    return None


def bowl(point: Point) -> float:
    """Best, 0, at lr = 0.05, momentum = 0.9 with sgd; adam costs something."""
    distance = math.log10(point["lr"] / 0.05) ** 2
    return -distance - (10 * (point["momentum"] - 0.9) ** 2 if point["optimizer"] == "sgd" else 0.3)


def search(sampler: Sampler, objective: Objective, n: int) -> list[list[Point]]:
    """All rounds until there are no more; at most 1,000."""
    rounds = []
    for _ in range(1000):
        points = sampler.ask(n)
        if not points:
            return rounds
        rounds.append(points)
        sampler.tell(points, [objective(point) for point in points])
    raise AssertionError("the search does not end")


def flat(rounds: list[list[Point]]) -> list[Point]:
    return [point for points in rounds for point in points]


def as_set(points: list[Point]) -> set[frozenset[tuple[str, Any]]]:
    return {frozenset(point.items()) for point in points}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [1, 7, 100])
def test_a_finite_space_is_covered_once_and_then_over(name: str, n: int) -> None:
    sampler = make_sampler(name, FINITE, trials=None, seed=3)
    rounds = search(sampler, lambda point: point["l1"], n)
    points = flat(rounds)
    assert all(len(points) == n for points in rounds[:-1])
    assert len(points) == 27
    assert as_set(points) == as_set(grid(FINITE))
    assert sampler.ask(n) == []


@pytest.mark.parametrize("name", SAMPLERS)
def test_trials_are_all_there_are(name: str) -> None:
    rounds = search(make_sampler(name, FINITE, trials=10, seed=3), nothing, 4)
    assert [len(points) for points in rounds] == [4, 4, 2]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_round_of_none_asks_nothing(name: str) -> None:
    sampler = make_sampler(name, FINITE, trials=10, seed=3)
    assert sampler.ask(0) == [] == sampler.ask(-1)
    assert len(sampler.ask(20)) == 10


def test_the_grid_comes_in_order() -> None:
    assert flat(search(make_sampler("grid", FINITE, trials=None, seed=0), nothing, 5)) == grid(FINITE)


@given(
    st.lists(st.sampled_from(["1e-4", "5e-4", "1e-3", "0"]), min_size=1, unique=True),
    st.lists(st.sampled_from(["sgd", "adam", "adamw"]), min_size=1, unique=True),
    st.integers(1, 9),
    st.integers(0, 2**40),
)
def test_random_covers_any_finite_space_exactly(l1: list[str], optimizers: list[str], n: int, seed: int) -> None:
    space = parse_set(
        [f"l1={','.join(l1)}", f"optimizer={','.join(optimizers)}", "momentum=0.5,0.9@optimizer=sgd@l1=0,1e-4"]
    )
    points = flat(search(make_sampler("random", space, trials=None, seed=seed), nothing, n))
    assert len(points) == len(grid(space))
    assert as_set(points) == as_set(grid(space))


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_the_same_seed_gives_the_same_points(name: str) -> None:
    def run(seed: int) -> list[Point]:
        return flat(search(make_sampler(name, MIXED, trials=36, seed=seed), bowl_of_mixed, 12))

    assert run(1993) == run(1993)
    assert run(1993) != run(1994)


SEARCH = """
from tosca_cache.sweep.space import parse_set
from tosca_cache.sweep.space.samplers import make_sampler
space = parse_set(['lr=log:0.001:1', 'optimizer=sgd,adam', 'momentum=lin:0.5:0.9@optimizer=sgd', 'milestones=5,5+10'])
for name in ('random', 'tpe'):
    sampler = make_sampler(name, space, trials=36, seed=1)
    while points := sampler.ask(12):
        sampler.tell(points, [point['lr'] for point in points]), print(name, points)
"""


def test_another_process_asks_for_the_same_points_and_says_nothing_else(capsys) -> None:
    """Texts have other hashes there."""
    exec(SEARCH, {})
    expected = capsys.readouterr().out
    other = subprocess.run(
        [sys.executable, "-W", "default", "-c", SEARCH],
        env={**os.environ, "PYTHONHASHSEED": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout == expected != ""
    assert "optuna" not in other.stderr.lower()


def test_random_points_do_not_depend_on_the_size_of_rounds() -> None:
    runs = [flat(search(make_sampler("random", MIXED, trials=24, seed=5), nothing, n)) for n in (1, 5, 24)]
    assert runs[0] == runs[1] == runs[2]


def bowl_of_mixed(point: Point) -> float | None:
    return None if point["lr"] > 0.5 else bowl(point)


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_points_are_settings_of_the_active_axes(name: str) -> None:
    points = flat(search(make_sampler(name, MIXED, trials=60, seed=2), bowl_of_mixed, 20))
    assert len(as_set(points)) == len(points) == 60
    for point in points:
        config = resolve(overrides={"dataset": "somewhere", **point}).config
        assert {key: getattr(config, key) for key in point} == point
        assert ("momentum" in point) == (point["optimizer"] == "sgd")
        assert ("weight_decay" in point) == (point["optimizer"] == "adam")
        assert ("milestones" in point) == (point["scheduler"] == "steplr")
        assert 0.001 <= point["lr"] <= 1 and float(f"{point['lr']:.6g}") == point["lr"]
        assert 0.5 <= point.get("momentum", 0.5) <= 0.95
        assert point["epochs"] in (5, 10, 15, 20, 25, 30)
    assert {point["optimizer"] for point in points} == {"sgd", "adam"}


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_base_setting_decides_conditions_on_other_keys(name: str) -> None:
    space = parse_set(["momentum=0.8,0.9@optimizer=sgd", "l1=0,1e-4"])
    for base, count in (({"optimizer": "sgd"}, 4), ({"optimizer": "adam"}, 2), (None, 4)):
        assert len(flat(search(make_sampler(name, space, trials=None, seed=1, base=base), nothing, 3))) == count


def test_random_branches_are_drawn_equally_however_many_points_they_have() -> None:
    space = parse_set(
        ["optimizer=sgd,adam", "momentum=lin:0:0.9:1000@optimizer=sgd", "weight_decay=lin:0:1@optimizer=adam"]
    )
    points = make_sampler("random", space, trials=None, seed=1).ask(400)
    assert 150 < sum(point["optimizer"] == "sgd" for point in points) < 250


def test_random_draws_a_log_range_evenly_in_the_logarithm() -> None:
    points = make_sampler("random", parse_set(["lr=log:0.0001:1"]), trials=None, seed=1).ask(400)
    assert 150 < sum(point["lr"] < 0.01 for point in points) < 250


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_a_range_too_narrow_for_new_numbers_ends(name: str) -> None:
    space = parse_set(["lr=lin:0.1:0.100003"])
    points = flat(search(make_sampler(name, space, trials=None, seed=1), nothing, 10))
    assert as_set(points) <= as_set([{"lr": value} for value in (0.1, 0.100001, 0.100002, 0.100003)])
    assert len(as_set(points)) == len(points) >= 2


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_space_of_one_point(name: str) -> None:
    for space, point in ((parse_set([]), {}), (parse_set(["lr=0.1"]), {"lr": 0.1})):
        assert search(make_sampler(name, space, trials=None, seed=1), nothing, 8) == [[point]]


# TPE


def best_of(name: str, space: Space, objective: Objective, seed: int, trials: int, n: int) -> float:
    points = flat(search(make_sampler(name, space, trials=trials, seed=seed), objective, n))
    return max(score for point in points if (score := objective(point)) is not None)


@pytest.mark.campaign
def test_tpe_finds_better_settings_than_random() -> None:
    space = parse_set(["lr=log:0.0001:1", "optimizer=sgd,adam", "momentum=lin:0:0.99@optimizer=sgd"])
    found = {
        name: statistics.median(best_of(name, space, bowl, seed, trials=64, n=16) for seed in range(times(10, 25)))
        for name in ("random", "tpe")
    }
    assert found["tpe"] > found["random"]


@pytest.mark.campaign
def test_tpe_finds_better_listed_values_than_random() -> None:
    space = parse_set([f"{key}=lin:0:0.9:10" for key in ("l1", "momentum", "weight_decay")])

    def count(point: Point) -> float:
        return sum(value == 0.3 for value in point.values()) - 0.1 * sum(point.values())

    found = {
        name: statistics.median(best_of(name, space, count, seed, trials=80, n=16) for seed in range(times(5, 25)))
        for name in ("random", "tpe")
    }
    assert found["tpe"] > found["random"]


def test_tpe_keeps_away_from_what_diverges() -> None:
    space = parse_set(["lr=log:0.0001:1"])

    def diverging(point: Point) -> float | None:
        return float("nan") if point["lr"] > 0.1 else None if point["lr"] > 0.01 else 1.0

    rounds = search(make_sampler("tpe", space, trials=80, seed=4), diverging, 20)
    failed = [sum(point["lr"] > 0.01 for point in points) for points in rounds]
    assert failed[0] >= 5 > failed[-1]


def test_tpe_survives_a_search_in_which_all_fails() -> None:
    assert len(flat(search(make_sampler("tpe", MIXED, trials=60, seed=4), nothing, 20))) == 60


def test_tpe_takes_scores_of_some_points_in_any_order() -> None:
    sampler = make_sampler("tpe", MIXED, trials=None, seed=4)
    first = sampler.ask(16)
    sampler.tell(first[::-2], [bowl(point) for point in first[::-2]])
    assert len(as_set(first + sampler.ask(16))) == 32


# What is refused


def test_an_unknown_sampler_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'randon'") as caught:
        make_sampler("randon", FINITE, trials=None, seed=1)
    assert "'random'" in (caught.value.remedy or "")


def test_no_trials_are_refused() -> None:
    with pytest.raises(UsageError, match="0 trials"):
        make_sampler("random", FINITE, trials=0, seed=1)


def test_a_grid_over_a_continuous_range_is_refused() -> None:
    with pytest.raises(UsageError, match="lr is a continuous range"):
        make_sampler("grid", MIXED, trials=5, seed=1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_setting_that_cannot_be_trained_is_refused_before_the_first_round(name: str) -> None:
    with pytest.raises(ConfigError, match="no milestones"):
        make_sampler(name, parse_set(["lr=0.1,0.2", "scheduler=cosine,steplr"]), trials=None, seed=1)


def test_a_grid_loads_no_library() -> None:
    code = (
        "import sys\nfrom tosca_cache.sweep.space import parse_set\n"
        "from tosca_cache.sweep.space.samplers import make_sampler\n"
        "make_sampler('grid', parse_set(['lr=0.01,0.1']), trials=3, seed=1).ask(2)\n"
        "print({'torch', 'optuna'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
