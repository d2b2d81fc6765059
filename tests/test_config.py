"""Settings: their limits, their precedence, what is shipped, and how they are written down."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.config import SCHEDULERS, TrainConfig, help_text, resolve, shipped_configs, show, to_toml
from tosca_cache.config.schema import KEYS, SECTIONS
from tosca_cache.errors import ConfigError

POSITIVE = ("increment", "init_cls", "batch_size", "routing_batch_size", "mlp_ratio", "img_size", "shots")
OUT_OF_RANGE = {
    "epochs": [0, 20.0, True, "20"],
    "lr": [0, -0.1, float("nan"), float("inf"), 10**400, "0.1"],
    **{"l1": [-1e-9], "weight_decay": [-1], "momentum": [1.0], "eta_min": [-1], "gamma": [0]},
    **{key: [0] for key in POSITIVE},
    **{"se_ratio": [-1], "views": [-1], "flow": ["toska"], "optimizer": ["SGD"], "scheduler": [3]},
    **{"normalize": ["imagenet"], "shuffle": [1], "device": ["gpu"], "dataset": ["", "cub\n"], "router": [""]},
    "seeds": [(), (1993, 1993), (-1,), (2**32,), "1993;1994", [[1993]], "9" * 5000],
    "milestones": [(15, 10), (0,)],
    "task_sizes": [(), "2,0", "2;3"],
    "class_order": [(), "a.txt", ["a", -1], ["a", "b\n"], ["a", 1.5]],
}


@pytest.mark.parametrize("key", OUT_OF_RANGE)
def test_wrong_values_are_refused_with_the_key_and_a_remedy(key):
    for value in OUT_OF_RANGE[key]:
        with pytest.raises(ConfigError) as caught:
            TrainConfig(**{key: value})
        assert (caught.value.where, caught.value.exit_code) == (key, 2) and caught.value.remedy, value


def test_what_is_mistyped_names_the_nearest_and_the_layer_that_gave_it(tmp_path):
    for call, words in (
        (lambda: TrainConfig(flow="toscar"), "nearest is tosca_r"),
        (lambda: resolve(overrides={"batchsize": 3}), "Did you mean 'batch_size'"),
    ):
        with pytest.raises(ConfigError, match=words):
            call()
    path = tmp_path / "mine.toml"
    path.write_text('[training]\nscheduler = "steplr"\nmilestones = []\n')
    for layers, where in (
        ({"overrides": {"epochs": 0}}, "epochs (command line)"),
        ({"config": path}, f"milestones (file {path})"),
    ):
        with pytest.raises(ConfigError) as caught:
            resolve(**layers)
        assert caught.value.where == where


def test_defaults_are_the_published_hyperparameters_and_each_is_shown_with_its_origin():
    published = {"flow": "tosca", "mlp_ratio": 16, "se_ratio": 16, "l1": 5e-4, "lr": 0.025, "epochs": 20}
    published |= {"batch_size": 48, "optimizer": "sgd", "scheduler": "cosine", "momentum": 0.9, "eta_min": 1e-8}
    assert asdict(TrainConfig()).items() >= (published | {"router": "sample", "routing_batch_size": 48}).items()
    assert TrainConfig(seeds=[1, 2], lr=1, img_size="any") == TrainConfig(seeds=(1, 2), lr=1.0)
    assert all(help_text(key).endswith(".") for key in KEYS)
    rows = show(resolve(overrides={"lr": 0.5}))
    assert [row[0] for row in rows] == list(KEYS) and ("views", '"any"', "default") in rows
    assert {("lr", "0.5", "command line"), ("increment", "2", "shipped configs/digits.toml")} <= set(rows)


# One value a layer, so that the value shows where it came from.
FILE_VALUES = {"lr": 0.2, "epochs": 2, "router": "sample", "increment": 3, "seeds": [2], "views": 2}
LINE_VALUES = {"lr": 0.1, "epochs": 1, "router": "other", "increment": 4, "seeds": "1,11", "views": 1}


def write(path, values):
    """A TOML file of ours with these settings only."""
    lines = {}
    for section, key in ((section, key) for section, keys in SECTIONS.items() for key in keys):
        if key in values:
            lines.setdefault(f"[{section}]", []).append(f"{key} = {json.dumps(values[key])}")
    path.write_text("\n".join("\n".join([head, *body]) for head, body in lines.items()), encoding="utf-8")
    return path


@given(
    line=st.sets(st.sampled_from(sorted(LINE_VALUES))),
    file=st.none() | st.sets(st.sampled_from(sorted(FILE_VALUES))),
    dataset=st.sampled_from([None, "cub", "somewhere/else"]),
)
def test_precedence(tmp_path_factory, line, file, dataset):
    typed, path = {key: LINE_VALUES[key] for key in line} | {"dataset": dataset}, None
    if file is not None:
        path = write(tmp_path_factory.mktemp("configs") / "mine.toml", {key: FILE_VALUES[key] for key in file})
    resolved = resolve(config=path, overrides=typed)

    shipped_name = {None: "digits", "cub": "cub"}.get(dataset) if file is None else None
    below = resolve(config=shipped_name) if shipped_name else None
    for key in KEYS:
        if typed.get(key) is not None:
            expected, origin = getattr(TrainConfig(**{key: typed[key]}), key), "command line"
        elif key in (file or ()):
            expected, origin = getattr(TrainConfig(**{key: FILE_VALUES[key]}), key), f"file {path}"
        elif below and below.origin[key] != "default":
            expected, origin = getattr(below.config, key), f"shipped configs/{shipped_name}.toml"
        else:
            expected, origin = getattr(TrainConfig(), key), "default"
        assert (getattr(resolved.config, key), resolved.origin[key]) == (expected, origin), key


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


def test_shipped_configs_are_the_published_benchmarks_and_the_embedded_data():
    assert shipped_configs() == tuple(sorted({*PUBLISHED, *EMBEDDED, "digits-domains"}))
    for name, (classes, increment, tasks) in (PUBLISHED | EMBEDDED).items():
        config = resolve(config=name).config
        assert (config.increment, config.init_cls, classes / config.increment) == (increment, None, tasks)
        assert config.dataset == name.removesuffix("_in_order")
        assert config.shuffle is (name != "vtab_in_order")
        published = ("vit_base_patch16_224_in21k", "none", 224, (1993, 1994, 1995, 1996, 1997))
        store_and_seeds = (config.backbone, config.normalize, config.img_size, config.seeds)
        assert store_and_seeds == (published if name in PUBLISHED else ("vit_nano", "timm", 32, (1993,)))
        untouched = [key for section in ("module", "training", "inference") for key in SECTIONS[section]]
        assert all(getattr(config, key) == getattr(TrainConfig(), key) for key in untouched)
    domains = {"dataset": "digits-domains", "incremental": "domains", "increment": 10}
    assert resolve(config="digits-domains").config == replace(resolve(config="digits").config, **domains)
    for name in shipped_configs():
        text = (Path(__file__).parents[1] / "configs" / f"{name}.toml").read_text(encoding="utf-8")
        assert text.startswith("# ") and f"tosca train --config {name}" in text


naturals, rates = st.integers(1, 10**6), st.floats(1e-12, 1e3)
text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
ANY_CONFIG = st.builds(
    TrainConfig,
    dataset=text,
    img_size=st.none() | naturals,
    init_cls=st.none() | naturals,
    increment=naturals,
    incremental=st.just("classes"),
    shuffle=st.booleans(),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, unique=True),
    l1=st.floats(0, 1e6),
    lr=rates,
    epochs=naturals,
    scheduler=st.sampled_from(SCHEDULERS),
    milestones=st.lists(naturals, min_size=1, unique=True).map(sorted),
)
DOMAIN_TASKS = {"incremental": "domains", "increment": 10, "init_cls": None}
OWN_TASKS = {"increment": 10, "init_cls": None, "shuffle": True, "shots": 3}
OWN_TASKS |= {"task_sizes": (3, 2), "class_order": ("é", 7)}


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({}, set()),
        (DOMAIN_TASKS, {"increment", "init_cls", "task_sizes", "class_order"}),
        (OWN_TASKS, {"increment", "init_cls", "shuffle"}),
    ],
    ids=["plain", "domains", "own tasks"],
)
@given(config=ANY_CONFIG)
def test_written_settings_read_back_equal(tmp_path_factory, changes, idle, config):
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


def test_what_is_said_twice_is_refused_and_what_is_below_is_overruled(tmp_path):
    for said, key in (
        ({"task_sizes": "2,3", "increment": 5}, "increment"),
        ({"task_sizes": [2, 3], "init_cls": 5}, "init_cls"),
        ({"class_order": ["a", 1], "shuffle": False}, "shuffle"),
    ):
        decider = next(iter(said))
        with pytest.raises(ConfigError, match=f"{key} is given, but {decider} says") as raised:
            resolve(overrides=said)
        assert raised.value.where == f"{key} (command line)"
        path = write(tmp_path / "mine.toml", {decider: said[decider]})
        with pytest.raises(ConfigError, match=f"Leave {key} out, or set {decider} to"):
            resolve(config=path, overrides={key: said[key]})
        write(path, {key: said[key]})
        assert resolve(config=path, overrides={decider: said[decider]}).origin[key] == "default"
    path = write(tmp_path / "both.toml", {"incremental": "domains", "increment": 10})
    for layers, where in (
        ({"overrides": {"incremental": "domains", "init_cls": 10}}, "init_cls (command line)"),
        ({"config": path}, f"increment (file {path})"),
        ({"config": "digits-domains", "overrides": {"increment": 10}}, "increment (command line)"),
    ):
        with pytest.raises(ConfigError, match="each domain is a task") as raised:
            resolve(**layers)
        assert raised.value.where == where
    resolved = resolve(config="vtab", overrides={"incremental": "domains"})  # whose increment nobody has given
    assert resolved.config.increment == TrainConfig().increment and resolved.origin["increment"] == "default"
    back = resolve(config="digits-domains", overrides={"incremental": "classes", "increment": 5}).config
    assert (back.incremental, back.increment) == ("classes", 5)
