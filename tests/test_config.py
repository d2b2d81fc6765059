"""Settings: their limits, their precedence, what is shipped, and how they are written down."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.config import (
    FLOWS,
    NORMALIZATIONS,
    OPTIMIZERS,
    SCHEDULERS,
    TrainConfig,
    help_text,
    resolve,
    shipped_configs,
    show,
    to_toml,
)
from tosca_cache.config.schema import KEYS, SECTIONS
from tosca_cache.errors import ConfigError

OUT_OF_RANGE = {
    "epochs": [0, 20.0, True, "20"],
    "lr": [0, -0.1, float("nan"), float("inf"), 10**400, "0.1"],
    **{"l1": [-1e-9], "weight_decay": [-1], "momentum": [1.0], "eta_min": [-1], "gamma": [0]},
    **{
        key: [0]
        for key in ("increment", "init_cls", "batch_size", "routing_batch_size", "mlp_ratio", "img_size", "shots")
    },
    **{"se_ratio": [-1], "views": [-1], "flow": ["toska"], "optimizer": ["SGD"], "scheduler": [3]},
    **{"normalize": ["imagenet"], "shuffle": [1], "device": ["gpu"], "dataset": ["", "cub\n"], "router": [""]},
    "seeds": [(), (1993, 1993), (-1,), (2**32,), "1993;1994", [[1993]], "9" * 5000],
    "milestones": [(15, 10), (0,)],
    "task_sizes": [(), "2,0", "2;3"],
    "class_order": [(), "a.txt", ["a", -1], ["a", "b\n"], ["a", 1.5]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in OUT_OF_RANGE.items() for value in values])
def test_wrong_values_are_refused_with_the_key_and_a_remedy(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        _build(**{key: value})
    assert caught.value.where == key
    assert caught.value.remedy is not None
    assert caught.value.exit_code == 2


def _build(**values: Any) -> TrainConfig:
    """A config out of values of any type."""
    return TrainConfig(**values)


def test_a_mistyped_choice_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="nearest is tosca_r"):
        TrainConfig(flow="toscar")


def test_steplr_needs_milestones() -> None:
    with pytest.raises(ConfigError, match="milestones") as caught:
        TrainConfig(scheduler="steplr")
    assert caught.value.where == "milestones"
    assert TrainConfig(scheduler="steplr", milestones=(10,)).milestones == (10,)


def test_equal_settings_compare_equal_whatever_they_were_given_as() -> None:
    assert _build(seeds=[1, 2], lr=1, img_size="any") == TrainConfig(seeds=(1, 2), lr=1.0)


def test_defaults_are_the_published_hyperparameters_with_another_router() -> None:
    published = {
        "flow": "tosca",
        "mlp_ratio": 16,
        "se_ratio": 16,
        "l1": 5e-4,
        "lr": 0.025,
        "epochs": 20,
        "batch_size": 48,
    }
    published |= {"optimizer": "sgd", "scheduler": "cosine", "momentum": 0.9, "eta_min": 1e-8, "routing_batch_size": 48}
    assert asdict(TrainConfig()).items() >= (published | {"router": "sample"}).items()


def test_every_setting_has_a_help_sentence() -> None:
    assert all(help_text(key).endswith(".") for key in KEYS)


# One value a layer, so that the value shows where it came from.
FILE_VALUES = {"lr": 0.2, "epochs": 2, "router": "sample", "increment": 3, "seeds": [2], "views": 2}
LINE_VALUES = {"lr": 0.1, "epochs": 1, "router": "other", "increment": 4, "seeds": ["1,11"], "views": 1}


def _toml(values: dict[str, object]) -> str:
    """A TOML file of ours with these settings only."""
    lines: dict[str, list[str]] = {}
    for section, key in ((section, key) for section, keys in SECTIONS.items() for key in keys):
        if key in values:
            lines.setdefault(f"[{section}]", []).append(f"{key} = {json.dumps(values[key])}")
    return "\n".join("\n".join([head, *body]) for head, body in lines.items())


@given(
    line=st.sets(st.sampled_from(sorted(LINE_VALUES))),
    file=st.none() | st.sets(st.sampled_from(sorted(FILE_VALUES))),
    dataset=st.sampled_from([None, "cub", "somewhere/else"]),
)
def test_precedence(
    tmp_path_factory: pytest.TempPathFactory,
    line: set[str],
    file: set[str] | None,
    dataset: str | None,
) -> None:
    typed: dict[str, object] = {key: LINE_VALUES[key] for key in line} | {"dataset": dataset}
    path = None
    if file is not None:
        path = tmp_path_factory.mktemp("configs") / "mine.toml"
        path.write_text(_toml({key: FILE_VALUES[key] for key in file}), encoding="utf-8")
    resolved = resolve(config=path, overrides=typed)

    shipped_name = {None: "digits", "cub": "cub"}.get(dataset) if file is None else None
    shipped = asdict(resolve(config=shipped_name).config) if shipped_name else {}
    shipped_origin = resolve(config=shipped_name).origin if shipped_name else {}
    for key in KEYS:
        value = getattr(resolved.config, key)
        if typed.get(key) is not None:
            expected, origin = getattr(_build(**{key: typed[key]}), key), "command line"
        elif key in (file or ()):
            expected, origin = getattr(_build(**{key: FILE_VALUES[key]}), key), f"file {path}"
        elif shipped_origin.get(key, "default") != "default":
            expected, origin = shipped[key], f"shipped configs/{shipped_name}.toml"
        else:
            expected, origin = getattr(TrainConfig(), key), "default"
        assert (value, resolved.origin[key]) == (expected, origin), key


def test_errors_say_which_layer_gave_the_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(overrides={"epochs": 0})
    assert caught.value.where == "epochs (command line)"
    path = tmp_path / "mine.toml"
    path.write_text('[training]\nscheduler = "steplr"\nmilestones = []\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        resolve(config=path)
    assert caught.value.where == f"milestones (file {path})"


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'batch_size'"):
        resolve(overrides={"batchsize": 3})


PUBLISHED = {  # classes (as packaged for the published numbers), classes a task, tasks
    "cifar100": (100, 5, 20),
    "cub": (200, 10, 20),
    "imageneta": (200, 20, 10),
    "imagenetr": (200, 20, 10),
    "objectnet": (200, 10, 20),
    "omnibenchmark": (300, 30, 10),
    "vtab": (50, 10, 5),
    "vtab_in_order": (50, 10, 5),
}
EMBEDDED = {"digits": (10, 2, 5), "glyphs": (100, 10, 10)}
DOMAINS = {"digits-domains"}


def test_shipped_configs_are_the_published_benchmarks_and_the_embedded_data() -> None:
    assert shipped_configs() == tuple(sorted({*PUBLISHED, *EMBEDDED, *DOMAINS}))


@pytest.mark.parametrize("name", sorted(PUBLISHED | EMBEDDED))
def test_shipped_config(name: str) -> None:
    config = resolve(config=name).config
    classes, increment, tasks = (PUBLISHED | EMBEDDED)[name]
    assert (config.increment, config.init_cls, classes / config.increment) == (increment, None, tasks)
    assert config.dataset == name.removesuffix("_in_order")
    assert config.shuffle is (name != "vtab_in_order")
    published = ("vit_base_patch16_224_in21k", "none", 224, (1993, 1994, 1995, 1996, 1997))
    store_and_seeds = (config.backbone, config.normalize, config.img_size, config.seeds)
    assert store_and_seeds == (published if name in PUBLISHED else ("vit_nano", "timm", 32, (1993,)))
    published = [key for section in ("module", "training", "inference") for key in SECTIONS[section]]
    assert all(getattr(config, key) == getattr(TrainConfig(), key) for key in published)


def test_shipped_config_of_domains() -> None:
    config = resolve(config="digits-domains").config
    assert (config.dataset, config.incremental, config.backbone) == ("digits-domains", "domains", "vit_nano")
    assert config == replace(
        resolve(config="digits").config, dataset="digits-domains", incremental="domains", increment=10
    )


def test_shipped_configs_say_how_they_are_written() -> None:
    folder = Path(__file__).parents[1] / "configs"
    for name in shipped_configs():
        text = (folder / f"{name}.toml").read_text(encoding="utf-8")
        assert text.startswith("# ")
        assert f"tosca train --config {name}" in text


def _any_config() -> st.SearchStrategy[TrainConfig]:
    naturals = st.integers(1, 10**6)
    rates = st.floats(1e-12, 1e3)
    text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
    return st.builds(
        TrainConfig,
        dataset=text,
        backbone=st.none() | text,
        normalize=st.none() | st.sampled_from(NORMALIZATIONS),
        img_size=st.none() | naturals,
        views=st.none() | st.integers(0, 99),
        init_cls=st.none() | naturals,
        increment=naturals,
        incremental=st.just("classes"),
        shuffle=st.booleans(),
        seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, unique=True),
        flow=st.sampled_from(FLOWS),
        l1=st.floats(0, 1e6),
        lr=rates,
        epochs=naturals,
        optimizer=st.sampled_from(OPTIMIZERS),
        scheduler=st.sampled_from(SCHEDULERS),
        milestones=st.lists(naturals, min_size=1, unique=True).map(sorted),
        momentum=st.floats(0, 1, exclude_max=True),
        gamma=rates,
        device=st.sampled_from(["auto", "cpu", "cuda", "cuda:1"]),
    )


DOMAIN_TASKS = {"incremental": "domains", "increment": 10, "init_cls": None}
OWN_TASKS = {
    "increment": 10,
    "init_cls": None,
    "shuffle": True,
    "task_sizes": (3, 2),
    "class_order": ("é", 7),
    "shots": 3,
}


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({}, set()),
        (DOMAIN_TASKS, {"increment", "init_cls", "task_sizes", "class_order"}),
        (OWN_TASKS, {"increment", "init_cls", "shuffle"}),
    ],
    ids=["plain", "domains", "own tasks"],
)
@given(config=_any_config())
def test_written_settings_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any], idle: set[str], config: TrainConfig
) -> None:
    config = replace(config, **changes)
    path = tmp_path_factory.mktemp("round") / "trip.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    resolved = resolve(config=path)
    assert resolved.config == config
    assert {key for key, origin in resolved.origin.items() if origin != f"file {path}"} == idle
    assert set(resolved.ignored) == idle == set(config.idle)
    shown = {key: value for key, value, _ in show(resolved)}
    assert shown.keys() == set(KEYS) and {shown[key] for key in idle} <= {"(no effect)"}
    if changes == OWN_TASKS:
        back = resolve(config=path, overrides={"task_sizes": "increment", "increment": 3, "class_order": "seed"}).config
        assert (back.task_sizes, back.increment, back.class_order, back.shuffle) == (None, 3, None, True)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"task_sizes": "2,3", "increment": 5}, "increment"),
        ({"task_sizes": [2, 3], "init_cls": 5}, "init_cls"),
        ({"class_order": ["a", 1], "shuffle": False}, "shuffle"),
    ],
)
def test_what_is_said_twice_is_refused(tmp_path: Path, given: dict[str, object], key: str) -> None:
    decider = next(iter(given))
    with pytest.raises(ConfigError, match=f"{key} is given, but {decider} says") as raised:
        resolve(overrides=given)
    assert raised.value.where == f"{key} (command line)"
    path = tmp_path / "mine.toml"
    path.write_text(_toml({decider: given[decider]}), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"Leave {key} out, or set {decider} to"):
        resolve(config=path, overrides={key: given[key]})
    path.write_text(_toml({key: given[key]}), encoding="utf-8")
    assert resolve(config=path, overrides={decider: given[decider]}).origin[key] == "default"


@pytest.mark.parametrize("key", ["increment", "init_cls"])
def test_sizes_of_tasks_cannot_be_given_where_each_domain_is_one(tmp_path: Path, key: str) -> None:
    path = tmp_path / "both.toml"
    path.write_text(f'[protocol]\nincremental = "domains"\n{key} = 10\n', encoding="utf-8")
    for layers, where in (
        ({"overrides": {"incremental": "domains", key: 10}}, f"{key} (command line)"),
        ({"config": path}, f"{key} (file {path})"),
        ({"config": "digits-domains", "overrides": {key: 10}}, f"{key} (command line)"),
    ):
        with pytest.raises(ConfigError, match="each domain is a task") as raised:
            resolve(**cast(Any, layers))
        assert raised.value.where == where
    with pytest.raises(ConfigError, match="each domain is a task"):
        _build(incremental="domains", **{key: 3})


def test_domains_asked_for_above_overrule_sizes_from_below() -> None:
    """The shipped config of a dataset, or a file, has an increment that nobody gave beside --incremental domains."""
    for layers in ({"config": "vtab"}, {"overrides": {"dataset": "omnibenchmark"}}):
        overrides = layers.pop("overrides", {}) | {"incremental": "domains"}
        resolved = resolve(**cast(Any, layers), overrides=overrides)
        assert (resolved.config.incremental, resolved.config.increment) == ("domains", TrainConfig().increment)
        assert resolved.origin["increment"] == "default"
    back = resolve(config="digits-domains", overrides={"incremental": "classes", "increment": 5}).config
    assert (back.incremental, back.increment) == ("classes", 5)


def test_show_lists_every_setting_with_its_origin() -> None:
    rows = show(resolve(overrides={"lr": 0.5}))
    assert [row[0] for row in rows] == list(KEYS)
    assert ("lr", "0.5", "command line") in rows
    assert ("increment", "2", "shipped configs/digits.toml") in rows
    assert ("views", '"any"', "default") in rows
