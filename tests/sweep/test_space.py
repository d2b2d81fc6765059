"""Search spaces and samplers: what can be written, what is refused, the laws of the grid, and rounds of proposals."""

import itertools
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.config import TrainConfig, resolve
from tosca_cache.errors import ConfigError, ToscaError, UsageError
from tosca_cache.sweep.samplers import SAMPLERS, Sampler
from tosca_cache.sweep.space import MOST_POINTS, grid, parse_set

POOL = {  # values of each key, as they are written on the command line
    **{"flow": ["tosca", "tosca_r", "adapter", "calibrator"], "mlp_ratio": ["4", "16", "64"]},
    **{"l1": ["0", "1e-4", "5e-4", "1e-3"], "lr": ["0.01", "0.025", "0.1"], "optimizer": ["sgd", "adam", "adamw"]},
    **{"momentum": ["0.0", "0.8", "0.9"], "shuffle": ["true", "false"], "init_cls": ["increment", "10", "50"]},
    "router": ["sample", "batch"],
}
SPACES = st.dictionaries(st.sampled_from(sorted(POOL)), st.none(), min_size=1, max_size=5).flatmap(
    lambda keys: st.fixed_dictionaries({k: st.lists(st.sampled_from(POOL[k]), min_size=1, unique=True) for k in keys})
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("l1=1,1.0,1e0", (1.0,)),
        ("lr=log:0.012345678:0.1:2", (0.012345678, 0.1)),
        ("momentum=lin:0:0.99", None),
        ("epochs=lin:5:30:6", (5, 10, 15, 20, 25, 30)),
        ("epochs=lin:1:3:9", (1, 2, 3)),
        ("epochs=lin:1:3", None),
        ("init_cls=increment,10", (None, 10)),
        ("milestones=none,10,10+15", ((), (10,), (10, 15))),
        (" router = sample, batch ", ("sample", "batch")),
    ],
)
def test_values_are_read_in_their_own_types(text, values):
    (axis,) = parse_set([text]).axes
    assert axis.values == values
    assert values is None or [type(value) for value in axis.values] == [type(value) for value in values]


@given(st.floats(1e-9, 1e3), st.floats(1.001, 1e6), st.integers(2, 30), st.sampled_from(["log", "lin"]))
def test_a_range_rises_from_end_to_end_in_equal_steps(low, factor, count, kind):
    high = low * factor
    (axis,) = parse_set([f"l1={kind}:{low!r}:{high!r}:{count}"]).axes
    assert (axis.values[0], axis.values[-1], len(axis.values)) == (low, high, count)
    assert list(axis.values) == sorted(set(axis.values))
    assert all(float(f"{value:.6g}") == value for value in axis.values[1:-1])
    scale = math.log if kind == "log" else float
    for index, value in enumerate(axis.values):
        expected = scale(low) + index / (count - 1) * (scale(high) - scale(low))
        assert math.isclose(scale(value), expected, rel_tol=1e-5, abs_tol=1e-5)


@given(SPACES)
def test_a_grid_has_every_combination_in_order(axes):
    space = parse_set([f"{key}={','.join(values)}" for key, values in axes.items()])
    points = grid(space)
    expected = itertools.product(*(axis.values for axis in space.axes))
    assert points == [dict(zip(axes, values, strict=True)) for values in expected]
    for point in points:
        config = resolve(overrides={"dataset": "somewhere", **point}).config
        assert {key: getattr(config, key) for key in point} == point
    assert grid(parse_set([])) == [{}]


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("flow=toska", "flow", "the nearest is tosca"),
        ("method=nmc,lda", "Unknown key 'method'", "epochs"),
        ("dataset=cub,cifar100", "dataset cannot be swept", "--dataset"),
        ("seed=1,2", "seed cannot be swept", "--seeds"),
        ("lr", "which key", "KEY=VALUES"),
        ("=0.1", "which key", "KEY=VALUES"),
        ("lr=0.1,,0.2", "empty value", "comma"),
        ("lr=0.1,nan", "nan", "finite number"),
        ("epochs=1.5", "1.5", "integer"),
        ("shuffle=yes", "yes", "valid boolean"),
        ("milestones=15+10", "milestones", "increasing"),
        ("lr=lin:0:1:11", "lr cannot be 0.0", "greater than 0"),
        ("lr=log:a:1:3", "'a'", "valid number"),
        ("lr=log:0.1:1:1", "no range", "from 2 to"),
        ("epochs=int:1:3", "no range", "lin:LOW:HIGH"),
        ("lr=log:0.1", "no range", "log:LOW:HIGH"),
        ("lr=log:1:0.1:3", "empty", "lower end first"),
        ("l1=log:0:1:3", "empty", "above 0"),
        ("lr=log:0.1:1:1000000000", "no range", "to 100000"),
        ("lr=0.1,log:0.2:0.3:2", "no range", "log:LOW:HIGH"),
        ("lr=0.1 lr=0.2", "lr is given twice", "Join the values"),
    ],
)
def test_what_cannot_be_is_refused_with_place_and_remedy(text, problem, remedy):
    with pytest.raises(ConfigError) as caught:
        parse_set(text.split(" "))
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert caught.value.where.startswith("--set")


@given(st.text(max_size=30), st.sampled_from(["", "lr=", "lr=log:", "epochs=lin:", "milestones="]))
def test_no_text_breaks_the_reader(text, start):
    try:
        parse_set([start + text])
    except ToscaError:
        return


# Samplers

MIXED = parse_set(
    [
        *("lr=log:0.001:1", "l1=1e-4,5e-4,1e-3", "epochs=lin:5:30", "optimizer=sgd,adam", "momentum=lin:0.5:0.95"),
        *("scheduler=cosine,steplr", "milestones=10+15,5+10", "init_cls=increment,20"),
    ]
)
FINITE = parse_set(["l1=1e-4,5e-4,1e-3", "epochs=5,10,15", "optimizer=sgd,adam", "momentum=0.8,0.9"])


def search(name, space, objective=lambda point: None, *, n=16, trials=None, seed=1):
    """All rounds until there are no more."""
    sampler, rounds = Sampler(name, space, TrainConfig(), trials=trials, seed=seed), []
    while points := sampler.ask(n):
        assert len(rounds) < 1000
        rounds.append(points)
        sampler.tell(points, [objective(point) for point in points])
    return rounds


def different(points):
    return len({frozenset(point.items()) for point in points})


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [1, 7, 100])
def test_a_finite_space_is_covered_once_and_then_over(name, n):
    rounds = search(name, FINITE, lambda point: point["l1"], n=n)
    points = list(itertools.chain(*rounds))
    assert all(len(some) == n for some in rounds[:-1])
    assert len(points) == different(points) == 27
    adam = [point for point in points if point["optimizer"] == "adam"]
    assert len(adam) == 9 and not any("momentum" in point for point in adam), "momentum does not count there"


SEARCH = """
from tosca_cache.config import TrainConfig
from tosca_cache.sweep.space import parse_set
from tosca_cache.sweep.samplers import Sampler
space = parse_set(['lr=log:0.001:1', 'optimizer=sgd,adam', 'momentum=lin:0.5:0.9', 'milestones=5,5+10'])
for name in ('random', 'tpe'):
    sampler = Sampler(name, space, TrainConfig(scheduler="steplr", milestones=(3,)), trials=36, seed=1)
    while points := sampler.ask(12):
        sampler.tell(points, [point['lr'] for point in points]), print(name, points)
"""


def test_another_process_asks_for_the_same_points_and_says_nothing_else(capsys):
    """Texts have other hashes there."""
    exec(SEARCH, {})
    expected = capsys.readouterr().out
    command, env = [sys.executable, "-W", "default", "-c", SEARCH], {**os.environ, "PYTHONHASHSEED": "2"}
    other = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert other.stdout == expected != ""
    assert "optuna" not in other.stderr.lower()


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_points_are_settings_of_the_active_axes(name):
    """Large rates diverge; the best is lr = 0.05."""
    rounds = search(
        name, MIXED, lambda p: None if p["lr"] > 0.5 else -(math.log10(p["lr"] / 0.05) ** 2), n=20, trials=60
    )
    points = list(itertools.chain(*rounds))
    assert different(points) == len(points) == 60
    for point in points:
        config = resolve(overrides={"dataset": "somewhere", **point}).config
        assert {key: getattr(config, key) for key in point} == point
        assert ("momentum" in point) == (point["optimizer"] == "sgd")
        assert ("milestones" in point) == (point["scheduler"] == "steplr")
        assert 0.001 <= point["lr"] <= 1 and float(f"{point['lr']:.6g}") == point["lr"]
        assert point["epochs"] in range(5, 31)
    assert {point["optimizer"] for point in points} == {"sgd", "adam"}
    narrow = list(itertools.chain(*search(name, parse_set(["lr=lin:0.1:0.100003"]), n=10)))
    assert len(narrow) >= 2, "a range too narrow for new numbers ends"
    assert {point["lr"] for point in narrow} <= {0.1, 0.100001, 0.100002, 0.100003}


def test_tpe_keeps_away_from_what_diverges():
    def diverging(point):
        return float("nan") if point["lr"] > 0.1 else None if point["lr"] > 0.01 else 1.0

    rounds = search("tpe", parse_set(["lr=log:0.0001:1"]), diverging, n=20, trials=80, seed=4)
    failed = [sum(point["lr"] > 0.01 for point in points) for points in rounds]
    assert failed[0] >= 5 > failed[-1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_cannot_be_sampled_is_refused(name):
    with pytest.raises(UsageError, match=r"'randon'(.|\n)*'random'"):
        Sampler("randon", FINITE, TrainConfig(), trials=None, seed=1)
    with pytest.raises(UsageError, match="0 trials"):
        Sampler(name, FINITE, TrainConfig(), trials=0, seed=1)
    with pytest.raises(ConfigError, match=r"no milestones(.|\n)*scheduler=steplr"):
        search(name, parse_set(["lr=0.1,0.2", "scheduler=cosine,steplr"]))
    with pytest.raises(UsageError, match=f"20000000000 points, more than {MOST_POINTS}"):
        grid(parse_set(["lr=log:0.001:0.1:100000", "l1=lin:0:1:100000", "optimizer=sgd,adam"]))
