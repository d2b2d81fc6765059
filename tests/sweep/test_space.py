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
from tosca_cache.sweep.parse import parse_set, read_space
from tosca_cache.sweep.samplers import SAMPLERS, Sampler
from tosca_cache.sweep.space import MOST_POINTS, grid, merge

BASE = TrainConfig()
POOL = {  # values of each key, as they are written on the command line
    "flow": ["tosca", "tosca_r", "adapter", "calibrator"],
    "mlp_ratio": ["4", "16", "64"],
    "l1": ["0", "1e-4", "5e-4", "1e-3"],
    "lr": ["0.01", "0.025", "0.1"],
    "optimizer": ["sgd", "adam", "adamw"],
    "momentum": ["0.0", "0.8", "0.9"],
    "shuffle": ["true", "false"],
    "init_cls": ["increment", "10", "50"],
    "router": ["sample", "batch"],
}


def as_set(points):
    return {frozenset(point.items()) for point in points}


@st.composite
def spaces(draw):
    """Axes of which some depend on others, or on keys that no axis sets."""
    result = []
    keys = draw(st.lists(st.sampled_from(sorted(POOL)), min_size=1, max_size=5, unique=True))
    for index, key in enumerate(keys):
        values = draw(st.lists(st.sampled_from(POOL[key]), min_size=1, max_size=3, unique=True))
        others = [*keys[:index], *(key for key in sorted(POOL) if key not in keys)]
        asked = draw(st.lists(st.sampled_from(others), max_size=2, unique=True))
        conditions = "".join(f"@{other}={draw(st.sampled_from(POOL[other]))}" for other in asked)
        result.append(f"{key}={','.join(values)}{conditions}")
    return result


# What can be written


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("l1=1e-4,5e-4,1e-3", (1e-4, 5e-4, 1e-3)),
        ("l1=1,1.0,1e0", (1.0,)),
        ("lr=log:0.005:0.1:5", (0.005, 0.0105737, 0.0223607, 0.0472871, 0.1)),
        ("l1=lin:0:1:11", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
        ("lr=log:0.012345678:0.1:2", (0.012345678, 0.1)),
        ("lr=log:0.005:0.1", None),
        ("momentum=lin:0:0.99", None),
        ("epochs=int:5:30:5", (5, 10, 15, 20, 25, 30)),
        ("epochs=int:5:9:3", (5, 8)),
        ("epochs=int:1:3", (1, 2, 3)),
        ("init_cls=increment,10", (None, 10)),
        ("init_cls=int:10:50:20", (10, 30, 50)),
        ("shuffle=true,false", (True, False)),
        ("flow=tosca, adapter", ("tosca", "adapter")),
        ("milestones=10+15,5+10", ((10, 15), (5, 10))),
        ("milestones=none,10", ((), (10,))),
        (" router = sample ", ("sample",)),
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


def test_a_file_says_what_the_command_line_says(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(
        """
        [space]
        l1 = [1e-4, 5e-4]
        lr = "log:0.005:0.1:5"
        epochs = "int:5:30:5"
        init_cls = ["increment", 10]
        optimizer = ["sgd", "adam"]
        scheduler = ["cosine", "steplr"]
        [space.momentum]
        values = [0.8, 0.9]
        when = { optimizer = "sgd" }
        [space.weight_decay]
        range = "log:1e-5:1e-2"
        when = { optimizer = ["adam", "adamw"], flow = "tosca" }
        [space.milestones]
        values = [[10, 15], [5, 10]]
        when = { scheduler = "steplr" }
        """,
        encoding="utf-8",
    )
    assert read_space(path) == parse_set(
        [
            "l1=1e-4,5e-4",
            "lr=log:0.005:0.1:5",
            "epochs=int:5:30:5",
            "init_cls=increment,10",
            "optimizer=sgd,adam",
            "scheduler=cosine,steplr",
            "momentum=0.8,0.9@optimizer=sgd",
            "weight_decay=log:1e-5:1e-2@optimizer=adam,adamw@flow=tosca",
            "milestones=10+15,5+10@scheduler=steplr",
        ]
    )


def test_the_command_line_wins_key_by_key():
    file = parse_set(["lr=0.01,0.02", "optimizer=sgd,adam", "momentum=0.8,0.9@optimizer=sgd"])
    ours = parse_set(["momentum=0.5", "l1=0,1e-4", "lr=0.1"])
    assert merge(file, ours) == parse_set(["lr=0.1", "optimizer=sgd,adam", "momentum=0.5", "l1=0,1e-4"])
    assert merge(None, ours) == ours
    with pytest.raises(ConfigError, match="circle"):
        merge(file, parse_set(["optimizer=sgd,adam@momentum=0.9"]))


# Laws of the grid


@given(spaces(), st.sampled_from(POOL["optimizer"]), st.randoms(use_true_random=False))
def test_a_grid_has_every_combination_of_the_axes_whose_conditions_hold(texts, optimizer, random):
    base = resolve(overrides={"dataset": "somewhere", "optimizer": optimizer}).config
    space = parse_set(texts)
    points = grid(space, base)
    assert len(as_set(points)) == len(points)
    assert as_set(grid(parse_set(random.sample(texts, len(texts))), base)) == as_set(points)
    axes = {axis.key: axis for axis in space.axes}
    expected = set()
    for values in itertools.product(*(axis.values for axis in axes.values())):
        whole, point = dict(zip(axes, values, strict=True)), {}
        for axis in space.axes:  # each after those that it asks for
            if all((vars(base) | point)[key] in wanted for key, wanted in axis.when.items()):
                point[axis.key] = whole[axis.key]
        expected.add(frozenset(point.items()))
    assert as_set(points) == expected
    for point in points:
        config = resolve(overrides={"dataset": "somewhere", **point}).config
        assert {key: getattr(config, key) for key in point} == point


def test_axes_that_are_not_active_do_not_multiply():
    space = parse_set(["momentum=0.8,0.9@optimizer=sgd", "optimizer=sgd,adam"])
    assert grid(space, BASE) == [
        {"optimizer": "sgd", "momentum": 0.8},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adam"},
    ]
    assert grid(parse_set([]), BASE) == [{}]


def test_what_has_no_grid_is_refused():
    with pytest.raises(UsageError, match=f"162000000 points, more than {MOST_POINTS}"):
        grid(parse_set(["lr=log:0.001:0.1:9000", "l1=lin:0:1:9000", "optimizer=sgd,adam"]), BASE)
    with pytest.raises(UsageError, match="lr is a continuous range") as caught:
        grid(parse_set(["flow=tosca", "lr=log:0.005:0.1"]), BASE)
    assert "lr=log:0.005:0.1:5" in caught.value.remedy


# What is refused

REFUSED = [
    ("flow=toska", "flow", "the nearest is tosca"),
    ("sheduler=cosine", "sheduler", "scheduler"),
    ("dataset=cub,cifar100", "dataset cannot be swept", "each store"),
    ("incremental=domains", "incremental cannot be swept", "--incremental"),
    ("task_sizes=1,2", "task_sizes cannot be swept", "--task-sizes"),
    ("seed=1,2", "seed cannot be swept", "--seeds"),
    ("device=cpu", "device cannot be swept", "--device"),
    ("lr", "which key", "KEY=VALUES"),
    ("lr=", "which key", "KEY=VALUES"),
    ("=0.1", "which key", "KEY=VALUES"),
    ("lr=,", "empty value", "comma"),
    ("lr=0.1,,0.2", "empty value", "comma"),
    ("lr=0.1,nan", "nan", "above 0"),
    ("lr=fast", "fast", "above 0"),
    ("epochs=1.5", "1.5", "integer"),
    ("shuffle=yes", "yes", "true or false"),
    ("milestones=15+10", "milestones", "increasing"),
    ("lr=lin:0:1:11", "lr cannot be 0.0", "above 0"),
    ("lr=log:a:1:3", "'a'", "above 0"),
    ("lr=log:0.1", "no range", "log:LOW:HIGH"),
    ("lr=log:0.1:1:2:3", "no range", "log:LOW:HIGH"),
    ("lr=log:1:0.1:3", "empty", "lower end first"),
    ("epochs=int:5:5", "empty", "lower end first"),
    ("l1=log:0:1:3", "empty", "above 0"),
    ("lr=log:0.1:1:1", "no range", "at least 2"),
    ("lr=log:0.1:1:many", "'log:0.1:1:many'", "whole number"),
    ("epochs=int:1:9:0", "no range", "whole number"),
    ("lr=log:0.1:1:100000", "100000 values", "fewer"),
    ("epochs=int:1:1000000000", "1000000000 values", "larger step"),
    ("l1=" + ",".join(map(str, range(10_001))), "10001 values", "fewer"),
    ("lr=logg:0.1:1:5", "'logg:0.1:1:5'", "log:LOW:HIGH"),
    ("lr=int:1:3", "no range", "log:LOW:HIGH"),
    ("epochs=log:1:100:3", "no range", "int:LOW:HIGH"),
    ("lr=0.1,log:0.2:0.3:2", "no range", "log:LOW:HIGH"),
    ("momentum=0.9@optimizer", "which key", "KEY=VALUES"),
    ("momentum=0.9@optimiser=sgd", "Unknown key 'optimiser'", "optimizer"),
    ("momentum=0.9@optimizer=sgdd", "sgdd", "the nearest is sgd"),
    ("momentum=0.9@optimizer=sgd@optimizer=adam", "twice", "@optimizer=VALUE,VALUE"),
    ("momentum=0.8,0.9@momentum=0.9", "circle: momentum -> momentum", "away"),
]


@pytest.mark.parametrize(("text", "problem", "remedy"), REFUSED, ids=[text[:40] for text, *_ in REFUSED])
def test_what_cannot_be_is_refused_with_place_and_remedy(text, problem, remedy):
    with pytest.raises(ConfigError) as caught:
        parse_set([text])
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert caught.value.where.startswith("--set")


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["lr=0.1", "lr=0.2"], "lr is given twice"),
        (["flow=tosca@optimizer=sgd", "optimizer=sgd,adam@scheduler=cosine", "scheduler=cosine@flow=tosca"], "circle"),
        (["lr=log:0.01:0.1", "momentum=0.9@lr=0.05"], "momentum depends on lr, which is continuous"),
    ],
)
def test_axes_that_do_not_go_together_are_refused(texts, problem):
    with pytest.raises(ConfigError) as caught:
        parse_set(texts)
    assert problem in caught.value.problem
    assert caught.value.where in {f"--set {text.split('=')[0]}" for text in texts}


@pytest.mark.parametrize(
    ("content", "where", "problem"),
    [
        ("", "", "but nothing"),
        ("[space]", "", "but 'space'"),
        ("[training]\nlr = [0.1]", "", "'training'"),
        ("[space]\nlr = [0.1 0.2]", "", "line 2"),
        ("[space]\nlr = " + "[" * 5000, "", "not TOML"),
        ("[space]\nlr = 0.1", "[space] lr", "0.1"),
        ("[space]\nlr = []", "[space] lr", "no values"),
        ('[space]\nflow = "tosca"', "[space] flow", "no range"),
        ('[space]\nflow = ["toska"]', "[space] flow", "toska"),
        ('[space]\nlr = ["0.1"]', "[space] lr", "'0.1'"),
        ("[space]\nview = [0.1]", "[space] view", "Unknown key"),
        ("[space]\nseeds = [1993]", "[space] seeds", "cannot be swept"),
        ("[space]\nmilestones = [10, 15]", "[space] milestones", "Each value of milestones is a list"),
        ("[space.lr]\nvalue = [0.1]", "[space] lr", "'value'"),
        ('[space.lr]\nwhen = { flow = "tosca" }', "[space] lr", "'when'"),
        ('[space.lr]\nvalues = [0.1]\nrange = "log:0.1:1"', "[space] lr", "'values', 'range'"),
        ('[space.lr]\nvalues = "log:0.1:1"', "[space] lr", "log:0.1:1"),
        ("[space.lr]\nrange = [0.1]", "[space] lr", "[0.1]"),
        ('[space.lr]\nvalues = [0.1]\nwhen = "flow"', "[space] lr", "'when'"),
        ('[space.lr]\nvalues = [0.1]\nwhen = { flow = "toska" }', "[space] lr, when", "toska"),
        ("[space.lr]\nvalues = [0.1]\nwhen = { flow = [] }", "[space] lr, when", "no values"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_place(tmp_path, content, where, problem):
    path = tmp_path / "space.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_space(path)
    assert problem in caught.value.problem
    assert caught.value.where == f"{path}, {where}" if where else str(path)
    assert caught.value.remedy


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"[space] # \xe9")
    for name in ("absent.toml", ".", "latin.toml"):
        with pytest.raises(ConfigError) as caught:
            read_space(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
        assert caught.value.remedy


@given(st.text(max_size=30), st.sampled_from(["", "lr=", "lr=log:", "epochs=int:", "milestones=", "lr=0.1@"]))
def test_no_text_breaks_the_reader(text, start):
    try:
        parse_set([start + text])
    except ToscaError:
        return


# Samplers

MIXED = parse_set(
    [
        "lr=log:0.001:1",
        "l1=1e-4,5e-4,1e-3",
        "epochs=int:5:31:5",
        "optimizer=sgd,adam",
        "momentum=lin:0.5:0.95@optimizer=sgd",
        "scheduler=cosine,steplr",
        "milestones=10+15,5+10@scheduler=steplr",
        "init_cls=increment,20",
    ]
)
FINITE = parse_set(["l1=1e-4,5e-4,1e-3", "epochs=int:5:15:5", "optimizer=sgd,adam", "momentum=0.8,0.9@optimizer=sgd"])


def bowl(point):
    """Best, 0, at lr = 0.05, momentum = 0.9 with sgd; adam costs something; large rates diverge."""
    distance = math.log10(point["lr"] / 0.05) ** 2
    return -distance - (10 * (point["momentum"] - 0.9) ** 2 if point["optimizer"] == "sgd" else 0.3)


def search(name, space, objective=lambda point: None, *, n=16, trials=None, seed=1):
    """All rounds until there are no more."""
    sampler, rounds = Sampler(name, space, BASE, trials=trials, seed=seed), []
    while points := sampler.ask(n):
        assert len(rounds) < 1000
        rounds.append(points)
        sampler.tell(points, [objective(point) for point in points])
    return rounds


def flat(rounds):
    return [point for points in rounds for point in points]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [1, 7, 100])
def test_a_finite_space_is_covered_once_and_then_over(name, n):
    rounds = search(name, FINITE, lambda point: point["l1"], n=n)
    assert all(len(points) == n for points in rounds[:-1])
    assert len(flat(rounds)) == 27
    assert as_set(flat(rounds)) == as_set(grid(FINITE, BASE))
    if name == "grid":
        assert flat(rounds) == grid(FINITE, BASE)


@pytest.mark.parametrize("name", SAMPLERS)
def test_trials_are_all_there_are(name):
    assert [len(points) for points in search(name, FINITE, n=4, trials=10)] == [4, 4, 2]


SEARCH = """
from tosca_cache.config import TrainConfig
from tosca_cache.sweep.parse import parse_set
from tosca_cache.sweep.samplers import Sampler
space = parse_set(['lr=log:0.001:1', 'optimizer=sgd,adam', 'momentum=lin:0.5:0.9@optimizer=sgd', 'milestones=5,5+10'])
for name in ('random', 'tpe'):
    sampler = Sampler(name, space, TrainConfig(scheduler="steplr", milestones=(3,)), trials=36, seed=1)
    while points := sampler.ask(12):
        sampler.tell(points, [point['lr'] for point in points]), print(name, points)
"""


def test_another_process_asks_for_the_same_points_and_says_nothing_else(capsys):
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


def test_random_points_do_not_depend_on_the_size_of_rounds():
    runs = [flat(search("random", MIXED, n=n, trials=24, seed=5)) for n in (1, 5, 24)]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0] != flat(search("random", MIXED, trials=24, seed=6))


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_points_are_settings_of_the_active_axes(name):
    points = flat(search(name, MIXED, lambda point: None if point["lr"] > 0.5 else bowl(point), n=20, trials=60))
    assert len(as_set(points)) == len(points) == 60
    for point in points:
        config = resolve(overrides={"dataset": "somewhere", **point}).config
        assert {key: getattr(config, key) for key in point} == point
        assert ("momentum" in point) == (point["optimizer"] == "sgd")
        assert ("milestones" in point) == (point["scheduler"] == "steplr")
        assert 0.001 <= point["lr"] <= 1 and float(f"{point['lr']:.6g}") == point["lr"]
        assert point["epochs"] in (5, 10, 15, 20, 25, 30)
    assert {point["optimizer"] for point in points} == {"sgd", "adam"}


def test_tpe_keeps_away_from_what_diverges():
    def diverging(point):
        return float("nan") if point["lr"] > 0.1 else None if point["lr"] > 0.01 else 1.0

    rounds = search("tpe", parse_set(["lr=log:0.0001:1"]), diverging, n=20, trials=80, seed=4)
    failed = [sum(point["lr"] > 0.01 for point in points) for points in rounds]
    assert failed[0] >= 5 > failed[-1]


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_a_range_too_narrow_for_new_numbers_ends(name):
    points = flat(search(name, parse_set(["lr=lin:0.1:0.100003"]), n=10))
    assert as_set(points) <= as_set([{"lr": value} for value in (0.1, 0.100001, 0.100002, 0.100003)])
    assert len(points) >= 2


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_cannot_be_sampled_is_refused(name):
    with pytest.raises(UsageError, match="'randon'") as caught:
        Sampler("randon", FINITE, BASE, trials=None, seed=1)
    assert "'random'" in caught.value.remedy
    with pytest.raises(UsageError, match="0 trials"):
        Sampler(name, FINITE, BASE, trials=0, seed=1)
    with pytest.raises(ConfigError, match="no milestones") as caught:
        search(name, parse_set(["lr=0.1,0.2", "scheduler=cosine,steplr"]))
    assert "scheduler=steplr" in caught.value.where
