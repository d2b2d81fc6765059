"""Search spaces: what can be written, what is refused, and the laws of the grid."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.config import resolve
from tosca_cache.errors import ConfigError, ToscaError, UsageError
from tosca_cache.sweep.space import MOST_POINTS, Space, grid, idle, merge, parse_set, read_space, size
from tosca_cache.sweep.space.axis import Axis

POOL: dict[str, list[str]] = {  # values of each key, as they are written on the command line
    "flow": ["tosca", "tosca_r", "adapter", "calibrator"],
    "mlp_ratio": ["4", "16", "64"],
    "l1": ["0", "1e-4", "5e-4", "1e-3"],
    "lr": ["0.01", "0.025", "0.1"],
    "epochs": ["5", "10", "20"],
    "optimizer": ["sgd", "adam", "adamw"],
    "momentum": ["0.0", "0.8", "0.9"],
    "weight_decay": ["0", "1e-4"],
    "eta_min": ["0", "1e-8"],
    "shuffle": ["true", "false"],
    "init_cls": ["increment", "10", "50"],
    "router": ["sample", "batch"],
}


def domain(space: Space) -> dict[str, tuple[Any, ...] | None]:
    """Values by key."""
    return {axis.key: axis.values for axis in space.axes}


def points_of(space: Space, base: dict[str, Any] | None = None) -> set[frozenset[tuple[str, Any]]]:
    """The grid as a set."""
    return {frozenset(point.items()) for point in grid(space, base or {})}


@st.composite
def assignments(draw: st.DrawFn) -> list[str]:
    """Axes of different keys, each with a few values."""
    keys = draw(st.lists(st.sampled_from(sorted(POOL)), min_size=1, max_size=4, unique=True))
    return [
        f"{key}={','.join(draw(st.lists(st.sampled_from(POOL[key]), min_size=1, max_size=3, unique=True)))}"
        for key in keys
    ]


@st.composite
def conditional(draw: st.DrawFn) -> list[str]:
    """Axes of which some depend on earlier ones, or on keys that no axis sets."""
    result: list[str] = []
    keys = draw(st.lists(st.sampled_from(sorted(POOL)), min_size=2, max_size=5, unique=True))
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
def test_values_are_read_in_their_own_types(text: str, values: tuple[Any, ...] | None) -> None:
    (axis,) = parse_set([text]).axes
    assert axis.values == values
    assert values is None or [type(value) for value in axis.values or ()] == [type(value) for value in values]


@given(
    st.floats(1e-9, 1e3),
    st.floats(1.001, 1e6),
    st.integers(2, 30),
    st.sampled_from(["log", "lin"]),
)
def test_a_range_rises_from_end_to_end_in_equal_steps(low: float, factor: float, count: int, kind: str) -> None:
    high = low * factor
    (axis,) = parse_set([f"l1={kind}:{low!r}:{high!r}:{count}"]).axes
    assert axis.values is not None and len(axis.values) == count
    assert (axis.values[0], axis.values[-1]) == (low, high)
    assert list(axis.values) == sorted(set(axis.values))
    assert all(float(f"{value:.6g}") == value for value in axis.values[1:-1])
    scale = math.log if kind == "log" else float
    for index, value in enumerate(axis.values):
        expected = scale(low) + index / (count - 1) * (scale(high) - scale(low))
        assert math.isclose(scale(value), expected, rel_tol=1e-5, abs_tol=1e-5)


def test_a_file_says_what_the_command_line_says(tmp_path: Path) -> None:
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


def test_the_command_line_wins_key_by_key() -> None:
    file = parse_set(["lr=0.01,0.02", "optimizer=sgd,adam", "momentum=0.8,0.9@optimizer=sgd"])
    given_ = parse_set(["momentum=0.5", "l1=0,1e-4", "lr=0.1"])
    assert merge(file, given_) == parse_set(["lr=0.1", "optimizer=sgd,adam", "momentum=0.5", "l1=0,1e-4"])
    assert merge(None, given_) == given_
    assert merge(file, parse_set([])) == file


def test_a_circle_through_both_sources_is_refused() -> None:
    with pytest.raises(ConfigError, match="circle: momentum -> optimizer -> momentum"):
        merge(parse_set(["momentum=0.8,0.9@optimizer=sgd"]), parse_set(["optimizer=sgd,adam@momentum=0.9"]))


# Laws of the grid


@given(assignments())
def test_an_unconditional_grid_is_the_product(texts: list[str]) -> None:
    space = parse_set(texts)
    expected = list(itertools.product(*(axis.values or () for axis in space.axes)))
    assert size(space) == len(expected) == len(points_of(space))
    assert [tuple(point[axis.key] for axis in space.axes) for point in grid(space)] == expected


@given(st.one_of(assignments(), conditional()))
def test_every_point_is_a_setting_and_no_two_are_alike(texts: list[str]) -> None:
    space = parse_set(texts)
    points = grid(space)
    for point in points:
        config = resolve(overrides={"dataset": "somewhere", **point}).config
        # None means "not given" to resolve; it is the default of the only key that has it here.
        assert {key: getattr(config, key) for key in point} == point
    assert len(points_of(space)) == len(points) == size(space)


@given(conditional(), st.randoms(use_true_random=False))
def test_the_order_of_axes_does_not_change_the_set_of_points(texts: list[str], random: Any) -> None:
    shuffled = random.sample(texts, len(texts))
    assert points_of(parse_set(texts)) == points_of(parse_set(shuffled))


@given(conditional(), st.sampled_from(POOL["optimizer"]), st.sampled_from(POOL["flow"]))
def test_a_point_has_exactly_the_axes_whose_conditions_its_setting_meets(
    texts: list[str], optimizer: str, flow: str
) -> None:
    space, base = parse_set(texts), {"optimizer": optimizer, "flow": flow}
    seen: set[str] = set()
    for point in grid(space, base):
        setting = vars(resolve(overrides={"dataset": "somewhere", **base, **point}).config)
        expected = {
            axis.key
            for axis in space.axes
            if all(setting[condition.key] in condition.values for condition in axis.when)
        }
        assert set(point) == expected
        seen |= expected
    assert set(idle(space, base)) == set(domain(space)) - seen


def test_axes_that_are_not_active_do_not_multiply() -> None:
    space = parse_set(["momentum=0.8,0.9@optimizer=sgd", "optimizer=sgd,adam"])
    assert grid(space) == [
        {"optimizer": "sgd", "momentum": 0.8},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adam"},
    ]
    assert size(space) == 3


def test_conditions_in_a_chain_follow_the_base_setting() -> None:
    space = parse_set(["eta_min=0,1e-6@scheduler=cosine", "scheduler=cosine,constant@flow=tosca"])
    assert size(space) == 3
    assert points_of(space, {"flow": "adapter"}) == {
        frozenset({("eta_min", 0.0)}),
        frozenset({("eta_min", 1e-6)}),
    }
    assert grid(space, {"flow": "adapter", "scheduler": "constant"}) == [{}]
    assert idle(space, {"flow": "adapter", "scheduler": "constant"}) == ("eta_min", "scheduler")


def test_an_empty_space_has_the_base_setting_as_its_one_point() -> None:
    assert grid(parse_set([])) == [{}]
    assert size(parse_set([])) == 1


def test_size_of_a_huge_grid_is_counted_without_listing_it() -> None:
    space = parse_set(["lr=log:0.001:0.1:9000", "l1=lin:0:1:9000", "optimizer=sgd,adam", "momentum=0.8@optimizer=sgd"])
    assert size(space) == 2 * 9000 * 9000
    with pytest.raises(UsageError, match=f"162000000 points, more than {MOST_POINTS}"):
        grid(space)


def test_a_continuous_range_has_no_grid() -> None:
    space = parse_set(["flow=tosca", "lr=log:0.005:0.1"])
    assert size(space) is None
    with pytest.raises(UsageError) as caught:
        grid(space)
    assert "lr" in caught.value.problem
    assert "lr=log:0.005:0.1:5" in (caught.value.remedy or "")


def test_a_continuous_range_that_is_never_active_does_not_matter() -> None:
    space = parse_set(["optimizer=adam,adamw", "momentum=lin:0.5:0.9@optimizer=sgd"])
    assert size(space) == len(grid(space)) == 2
    assert idle(space) == ("momentum",)


def test_steplr_needs_milestones_from_an_axis_or_the_base() -> None:
    alone = parse_set(["scheduler=cosine,steplr"])
    with pytest.raises(ConfigError, match="no milestones") as caught:
        grid(alone)
    assert caught.value.where == "the point scheduler=steplr"
    assert len(grid(alone, {"milestones": [10, 15]})) == 2
    assert len(grid(parse_set(["scheduler=cosine,steplr", "milestones=10+15,5@scheduler=steplr"]))) == 3


# What is refused

REFUSED = [
    ("flow=toska", "flow", "the nearest is tosca"),
    ("sheduler=cosine", "sheduler", "scheduler"),
    ("dataset=cub,cifar100", "dataset cannot be swept", "each store"),
    ("backbone=any", "backbone cannot be swept", "each store"),
    ("normalize=timm", "normalize cannot be swept", "each store"),
    ("img_size=224", "img_size cannot be swept", "each store"),
    ("views=4,8", "views cannot be swept", "each store"),
    ("incremental=domains", "incremental cannot be swept", "--incremental"),
    ("seeds=1,2", "seeds cannot be swept", "--seeds"),
    ("seed=1,2", "seed cannot be swept", "--seeds"),
    ("device=cpu", "device cannot be swept", "--device"),
    ("engine=torch", "engine cannot be swept", "--engine"),
    ("lr", "which key", "KEY=VALUES"),
    ("lr=", "which key", "KEY=VALUES"),
    ("=0.1", "which key", "KEY=VALUES"),
    ("lr=,", "empty value", "comma"),
    ("lr=0.1,,0.2", "empty value", "comma"),
    ("lr=0.1,nan", "nan", "above 0"),
    ("lr=fast", "fast", "above 0"),
    ("lr=0.1,-0.1", "-0.1", "above 0"),
    ("epochs=1.5", "1.5", "integer"),
    ("shuffle=yes", "yes", "true or false"),
    ("milestones=15+10", "milestones", "increasing"),
    ("milestones=ten", "milestones", "increasing"),
    ("lr=lin:0:1:11", "lr cannot be 0.0", "above 0"),
    ("lr=log:a:1:3", "'a'", "above 0"),
    ("lr=log:0.1", "not a whole range", "log:LOW:HIGH"),
    ("lr=log:0.1:1:2:3", "not a whole range", "log:LOW:HIGH"),
    ("lr=log:1:0.1:3", "empty", "lower end first"),
    ("epochs=int:5:5", "empty", "lower end first"),
    ("l1=log:0:1:3", "begin at 0", "lin:0:1:3"),
    ("lr=log:0.1:1:1", "two ends", "at least 2"),
    ("lr=log:0.1:1:many", "'many'", "whole number"),
    ("epochs=int:1:9:0", "'0'", "whole number"),
    ("lr=log:0.1:0.10001:1000", "do not differ", "lower count"),
    ("lr=log:0.1:1:100000", "100000 values", "fewer"),
    ("epochs=int:1:1000000000", "1000000000 values", "larger step"),
    ("l1=" + ",".join(map(str, range(10_001))), "10001 values", "fewer"),
    ("lr=logg:0.1:1:5", "'logg'", "'log'"),
    ("lr=int:1:3", "real numbers", "log:LOW:HIGH"),
    ("epochs=log:1:100:3", "whole numbers", "int:LOW:HIGH"),
    ("lr=0.1,log:0.2:0.3:2", "mixes", "one range alone"),
    ("momentum=0.9@optimizer", "which key", "KEY=VALUES"),
    ("momentum=0.9@optimiser=sgd", "Unknown key 'optimiser'", "optimizer"),
    ("momentum=0.9@optimizer=sgdd", "sgdd", "the nearest is sgd"),
    ("momentum=0.9@optimizer=sgd@optimizer=adam", "twice", "@optimizer=VALUE,VALUE"),
    ("momentum=0.9@seeds=1993", "cannot ask for seeds", "another key"),
    ("momentum=0.8,0.9@momentum=0.9", "circle: momentum -> momentum", "away"),
]


@pytest.mark.parametrize(("text", "problem", "remedy"), REFUSED, ids=[text[:40] for text, *_ in REFUSED])
def test_what_cannot_be_is_refused_with_place_and_remedy(text: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_set([text])
    error = caught.value
    assert problem in error.problem
    assert remedy in (error.remedy or "")
    assert (error.where or "").startswith("--set")


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["lr=0.1", "lr=0.2"], "lr is given twice"),
        (
            ["flow=tosca@optimizer=sgd", "optimizer=sgd,adam@scheduler=cosine", "scheduler=cosine@flow=tosca"],
            "circle: flow -> optimizer -> scheduler -> flow",
        ),
        (["lr=log:0.01:0.1", "momentum=0.9@lr=0.05"], "momentum depends on lr, which is continuous"),
    ],
)
def test_axes_that_do_not_go_together_are_refused(texts: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_set(texts)
    assert problem in caught.value.problem
    assert caught.value.where in {f"--set {text.split('=')[0]}" for text in texts}
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "where", "problem"),
    [
        ("", "", "no search space"),
        ("space = 3", "", "no search space"),
        ("[space]", "", "no search space"),
        ("[training]\nlr = [0.1]", "", "'training'"),
        ("lr = [0.1]", "", "'lr'"),
        ("[space]\nlr = [0.1 0.2]", "", "line 2"),
        ("[space]\nlr = [0.1]\nlr = [0.2]\n", "", "line 3"),
        ("[space]\nlr = " + "[" * 5000, "", "too deep"),
        ("[space]\nlr = 0.1", "[space] lr", "cannot be 0.1 here"),
        ("[space]\nlr = []", "[space] lr", "no values"),
        ('[space]\nflow = "tosca"', "[space] flow", "no range"),
        ('[space]\nflow = ["toska"]', "[space] flow", "toska"),
        ('[space]\nlr = ["0.1"]', "[space] lr", "'0.1'"),
        ("[space]\nview = [0.1]", "[space] view", "Unknown key"),
        ("[space]\nseeds = [1993]", "[space] seeds", "cannot be swept"),
        ("[space]\nmilestones = [10, 15]", "[space] milestones", "Each value of milestones is a list"),
        ("[space.lr]\nvalue = [0.1]", "[space] lr", "Unknown entry 'value'"),
        ('[space.lr]\nwhen = { flow = "tosca" }', "[space] lr", "neither"),
        ('[space.lr]\nvalues = [0.1]\nrange = "log:0.1:1"', "[space] lr", "both"),
        ('[space.lr]\nvalues = "log:0.1:1"', "[space] lr", "values cannot be"),
        ("[space.lr]\nrange = [0.1]", "[space] lr", "range cannot be"),
        ("[space.lr]\nrange = 3", "[space] lr", "range cannot be"),
        ('[space.lr]\nvalues = [0.1]\nwhen = "flow"', "[space] lr", "when cannot be"),
        ('[space.lr]\nvalues = [0.1]\nwhen = { flo = "tosca" }', "[space] lr, when", "Unknown key"),
        ('[space.lr]\nvalues = [0.1]\nwhen = { flow = "toska" }', "[space] lr, when", "toska"),
        ("[space.lr]\nvalues = [0.1]\nwhen = { flow = [] }", "[space] lr, when", "no values"),
        ("[space.lr]\nvalues = [0.1]\nwhen = { lr = 0.1 }", "[space] lr", "circle"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_place(
    tmp_path: Path, content: str, where: str, problem: str
) -> None:
    path = tmp_path / "space.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_space(path)
    assert problem in caught.value.problem
    assert caught.value.where == f"{path}, {where}" if where else str(path)
    assert caught.value.remedy


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"[space] # \xe9")
    for name in ("absent.toml", ".", "latin.toml"):
        with pytest.raises(ConfigError) as caught:
            read_space(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
        assert caught.value.remedy


@given(st.text(max_size=30), st.sampled_from(["", "lr=", "lr=log:", "epochs=int:", "milestones=", "lr=0.1@"]))
def test_no_text_breaks_the_reader(text: str, start: str) -> None:
    try:
        space = parse_set([start + text])
    except ToscaError:
        return
    assert all(isinstance(axis, Axis) for axis in space.axes)


def test_spaces_load_no_heavy_library() -> None:
    probe = "import tosca_cache.sweep.space, sys\nprint({'torch', 'numpy', 'optuna'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
