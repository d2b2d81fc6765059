"""Config files: names, our TOML, the reference's JSON, and everything that can be wrong with them."""

import json

import pytest
from reference.setting import REFERENCE

from tosca_cache.config import TrainConfig, resolve, shipped_configs, show
from tosca_cache.errors import ConfigError


def write(folder, text, name="mine.toml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def theirs(folder, **changes):
    return write(folder, json.dumps(REFERENCE | changes), "tosca.json")


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
    # The implicit config of a dataset is always the shipped one, never a file that lies about.
    assert resolve(overrides={"dataset": "cub"}).config.increment == 10


def test_unknown_configs_list_the_names_and_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'cifar100'") as caught:
        resolve(config="cifar10")
    assert all(name in str(caught.value) for name in shipped_configs())
    assert "Did you mean 'imagenetr'" in error(tmp_path / "imagenet_r.toml")
    assert "folder" in error(tmp_path) and ".toml or .json" in error(write(tmp_path, "lr: 1", "mine.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[training]\nlr = \n", "line 2, column 6"),
        ("[training]\nlr = '0.1'\n", "lr cannot be '0.1'"),
        ("[training]\nepochs = 0\n", "greater than or equal to 1"),
        ("[training]\nbatchsize = 1\n", "Did you mean 'batch_size'"),
        ("lr = 1\n[training]\nlr = 2\n", "lr stands twice"),
        ("training = 1\n", "Unknown key 'training'"),
        ("[protocol]\nseeds = [1993, 1993]\n", "all different"),
        ("[training]\nepochs = " + "9" * 5000, "5000 digits"),
        (b"[training]\nlr = \xff", "byte 0xff in position 16"),
        ('{"lr": 1,\n "epochs" 3}', "line 2 column 11"),
        ("{", "line 1 column 2"),
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
    assert set(resolved.ignored) == {"prefix", "pretrained"}
    assert [row[:2] for row in show(resolved)[-2:]] == [("prefix", "(no effect)"), ("pretrained", "(no effect)")]


def test_reference_json_is_the_protocol_of_the_shipped_config(tmp_path):
    increments = {"cifar224": 5, "cub": 10, "imageneta": 20, "imagenetr": 20, "omnibenchmark": 30, "vtab": 10}
    for dataset, increment in increments.items():
        read = resolve(config=theirs(tmp_path, dataset=dataset, init_cls=increment, increment=increment)).config
        ours = resolve(config=read.dataset).config
        for key in ("dataset", "increment", "shuffle", "backbone", "normalize"):
            assert getattr(read, key) == getattr(ours, key)


def test_what_the_reference_ignores_and_what_the_command_line_says_instead_is_ignored(tmp_path):
    """Keys that files of the toolboxes behind the reference have, and that its TOSCA never reads."""
    lineage = {"memory_size": 0, "memory_per_class": 0, "fixed_memory": False}
    lineage |= {"tuned_epoch": 3, "init_lr": 0.1, "min_lr": 0.0}
    resolved = resolve(config=theirs(tmp_path, **lineage))
    assert resolved.config == resolve(config=theirs(tmp_path)).config
    assert set(resolved.ignored) == {"prefix", "pretrained", *lineage}
    path = theirs(tmp_path, dataset="leaves")
    assert resolve(config=path, overrides={"dataset": "photos"}).config.dataset == "photos"
    assert "nearest is" in error(path)


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
