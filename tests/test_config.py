"""Settings: their limits, their layers, config files of ours and of the reference, and how they are written down."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.setting import REFERENCE

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


def test_defaults_are_the_published_hyperparameters_and_each_is_shown_with_its_origin():
    published = {"flow": "tosca", "mlp_ratio": 16, "se_ratio": 16, "l1": 5e-4, "lr": 0.025, "epochs": 20}
    published |= {"batch_size": 48, "optimizer": "sgd", "scheduler": "cosine", "momentum": 0.9, "eta_min": 1e-8}
    assert asdict(TrainConfig()).items() >= (published | {"router": "sample", "routing_batch_size": 48}).items()
    assert all(help_text(key).endswith(".") for key in KEYS)
    rows = show(resolve(overrides={"lr": 1, "seeds": [1, 2]}))
    assert [row[0] for row in rows] == list(KEYS) and ("views", '"any"', "default") in rows
    assert {("lr", "1.0", "command line"), ("increment", "2", "shipped configs/digits.toml")} <= set(rows)


# One value a layer, so that the value shows where it came from.
FILE_VALUES = {"lr": 0.2, "epochs": 2, "router": "sample", "increment": 3, "seeds": [2], "views": 2}
LINE_VALUES = {"lr": 0.1, "epochs": 1, "router": "other", "increment": 4, "seeds": "1,11", "views": 1}


def write(folder, content, name="mine.toml"):
    """A config file of this text, these bytes, or these settings of ours."""
    if isinstance(content, dict):
        keys = [(section, key) for section, keys in SECTIONS.items() for key in keys if key in content]
        content = "\n".join(f"{section}.{key} = {json.dumps(content[key])}" for section, key in keys)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def theirs(folder, **changes):
    return write(folder, json.dumps(REFERENCE | changes), "tosca.json")


@given(
    line=st.sets(st.sampled_from(sorted(LINE_VALUES))),
    file=st.none() | st.sets(st.sampled_from(sorted(FILE_VALUES))),
    dataset=st.sampled_from([None, "cub", "somewhere/else"]),
)
def test_precedence(tmp_path_factory, line, file, dataset):
    typed, path = {key: LINE_VALUES[key] for key in line} | {"dataset": dataset}, None
    if file is not None:
        path = write(tmp_path_factory.mktemp("configs"), {key: FILE_VALUES[key] for key in file})
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
    **{"cifar100": (100, 5, 20), "cub": (200, 10, 20), "imageneta": (200, 20, 10), "imagenetr": (200, 20, 10)},
    **{"objectnet": (200, 10, 20), "omnibenchmark": (300, 30, 10), "vtab": (50, 10, 5), "vtab_in_order": (50, 10, 5)},
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
ANY_CONFIG = st.builds(
    TrainConfig,
    dataset=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1),
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
    path = write(tmp_path_factory.mktemp("round"), to_toml(config))
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
        ({"incremental": "domains", "init_cls": 10}, "init_cls"),
    ):
        decider = next(iter(said))
        with pytest.raises(ConfigError, match=f"{key} is given, but {decider} (says|is)") as raised:
            resolve(overrides=said)
        assert raised.value.where == f"{key} (command line)"
        path = write(tmp_path, {decider: said[decider]})
        with pytest.raises(ConfigError, match=f"Leave {key} out, or set {decider} to"):
            resolve(config=path, overrides={key: said[key]})
        path = write(tmp_path, {key: said[key]})
        assert resolve(config=path, overrides={decider: said[decider]}).origin[key] == "default"
        path = write(tmp_path, said)
        with pytest.raises(ConfigError) as raised:
            resolve(config=path)
        assert raised.value.where == f"{key} (file {path})"
    resolved = resolve(config="vtab", overrides={"incremental": "domains"})  # whose increment nobody has given
    assert resolved.config.increment == TrainConfig().increment and resolved.origin["increment"] == "default"
    back = resolve(config="digits-domains", overrides={"incremental": "classes", "increment": 5}).config
    assert (back.incremental, back.increment) == ("classes", 5)


def error(path):
    with pytest.raises(ConfigError) as caught:
        resolve(config=path)
    assert str(path) in str(caught.value) and caught.value.remedy is not None
    return str(caught.value)


def test_names_find_shipped_configs_from_any_folder_and_a_path_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cub").mkdir()  # a folder of that name, such as a dataset, is no config
    for name in ("cub", "cub.toml", "configs/cub.toml"):
        assert resolve(config=name).origin["dataset"] == "file configs/cub.toml"
    write(tmp_path, "\ufeff[protocol]\nincrement = 7\n", "cub.toml")  # a mark at the start is no error
    resolved = resolve(config="cub.toml")
    assert (resolved.config.increment, resolved.origin["increment"]) == (7, "file cub.toml")
    assert resolve(overrides={"dataset": "cub"}).config.increment == 10, "of a dataset it is the shipped one"
    said = error("imagenet_r.toml")
    assert "Did you mean 'imagenetr'" in said and all(name in said for name in shipped_configs())
    assert "folder" in error(tmp_path) and ".toml or .json" in error(write(tmp_path, "lr: 1", "mine.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[training]\nlr = \n", "line 2, column 6"),
        ("[training]\nlr = '0.1'\n", "lr cannot be '0.1'"),
        ("[training]\nbatchsize = 1\n", "Did you mean 'batch_size'"),
        ("lr = 1\n[training]\nlr = 2\n", "lr stands twice"),
        ("training = 1\n", "Unknown key 'training'"),
        ("[training]\nepochs = " + "9" * 5000, "5000 digits"),
        (b"[training]\nlr = \xff", "byte 0xff in position 16"),
        ('{"lr": 1,\n "epochs" 3}', "line 2 column 11"),
        ("[1]", "not a JSON object"),
        ('{"lr": NaN}', "NaN is no number"),
        ('{"lr": ' + "[" * 100_000, "too deep"),
        ({"model_name": "simplecil"}, "model_name cannot be 'simplecil'"),
        ({"dataset": "cubs"}, "nearest is cub"),
        ({"seeds": [1]}, "Did you mean 'seed'"),
        ({"device": []}, "device cannot be []"),
        ({"device": ["--1"]}, "device cannot be ['--1']"),
        ({"pretrained": False}, "pretrained is false"),
        ({"prefix": 3}, "prefix cannot be 3"),
        ({"scheduler": "steplr"}, "steplr has no milestones"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_files_say_where_and_what(tmp_path, text, expected):
    """text: of a file of ours, of one of the reference's, or what it changes in a good one."""
    if isinstance(text, dict):
        path = theirs(tmp_path, **text)
    else:
        path = write(tmp_path, text, "tosca.json" if text[:1] == "{" or text == "[1]" else "mine.toml")
    assert expected in error(path)


def test_reference_json_unchanged(tmp_path):
    path = theirs(tmp_path)
    resolved = resolve(config=path)
    published = {"dataset": "cifar100", "backbone": "vit_base_patch16_224_in21k", "normalize": "none"}
    assert resolved.config == TrainConfig(**published, init_cls=5, increment=5, device="auto")
    assert {key for key, origin in resolved.origin.items() if origin == "default"} == {
        *("img_size", "views", "incremental", "task_sizes", "class_order", "shots"),
        *("method", "options", "momentum", "eta_min", "gamma", "engine", "router", "routing_batch_size"),
    }
    assert set(resolved.origin.values()) == {"default", f"file {path}"}
    # Keys that files of the toolboxes behind the reference have, and that its TOSCA never reads.
    lineage = {"memory_size": 0, "memory_per_class": 0, "fixed_memory": False}
    lineage |= {"tuned_epoch": 3, "init_lr": 0.1, "min_lr": 0.0}
    more = resolve(config=theirs(tmp_path, **lineage))
    assert more.config == resolved.config and set(more.ignored) == {"prefix", "pretrained", *lineage}
    assert {row[:2] for row in show(more)} >= {(key, "(no effect)") for key in more.ignored}
    path = theirs(tmp_path, dataset="leaves")
    assert resolve(config=path, overrides={"dataset": "photos"}).config.dataset == "photos"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *(({"device": given}, {"device": read}) for given, read in ((["0"], "auto"), (["2", "3"], "cuda:2"))),
        *(({"device": given}, {"device": read}) for given, read in (([1], "cuda:1"), (["-1"], "cpu"), ("0", "auto"))),
        ({"seed": 7, "milestones": None}, {"seeds": (7,), "milestones": ()}),
        ({"seed": [1, 2]}, {"seeds": (1, 2)}),
        ({"scheduler": "steplr", "milestones": [10, 15]}, {"scheduler": "steplr", "milestones": (10, 15)}),
        ({"scheduler": "constant"}, {"scheduler": "constant"}),
    ],
)
def test_reference_values_in_other_forms(tmp_path, changes, expected):
    config = resolve(config=theirs(tmp_path, **changes)).config
    assert {key: getattr(config, key) for key in expected} == expected
