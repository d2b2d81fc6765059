"""Which store a command takes: a named one and the command line come first, and one message says all that differs."""

import json
import os
import shlex
from pathlib import Path

import pytest
from commands import tosca
from reference.setting import REFERENCE

QUICK = ["--epochs", "1", "--increment", "3"]
TABLE = ["--methods", "simplecil", "--seeds", "1", "--increment", "3"]
VERBS = {
    "train": [],
    "sweep": ["--set", "lr=0.01", "--set", "epochs=1", "--set", "increment=3", "--report-seeds", "1"],
    "compare": TABLE,
}
SETTING = REFERENCE | {"dataset": "leaves", "init_cls": 3, "increment": 3, "device": ["-1"], "epochs": 1}
SETTING |= {"memory_size": 0, "init_lr": 0.1}


@pytest.fixture
def place(tmp_path, monkeypatch, make_store):
    """A working directory with a folder of photos, a store of it by another backbone, and a file of the reference."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    make_store(tmp_path / "cache" / "photos--toy", dataset="photos")
    (tmp_path / "setting.json").write_text(json.dumps(SETTING))
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_a_store_that_is_named_overrules_a_file(place, verb):
    result = tosca(verb, "--store", "cache/photos--toy", "--config", "setting.json", *VERBS[verb], code=0)
    lines = [line for line in result.output.splitlines() if "does not count" in line or "without effect" in line]
    assert lines == [
        "backbone vit_base_patch16_224_in21k (file setting.json) does not count: "
        "the store named by --store has toy.toy.test",
        "normalize none (file setting.json) does not count: the store named by --store has timm",
        "without effect here: prefix, pretrained, memory_size, init_lr (--show-config says why)",
    ]
    if verb == "train":
        config = next(Path("runs").iterdir()) / "config.toml"
        assert 'dataset = "photos"' in config.read_text() and 'normalize = "timm"' in config.read_text()
        assert tosca("train", "--config", config).exit_code == 0, "without --store it is found"


@pytest.mark.parametrize("verb", VERBS)
def test_one_message_has_all_differences_and_the_command_that_works(place, verb):
    words = [verb, "--config", "setting.json", "--dataset", "photos", "--views", "8", *VERBS[verb]]
    refused = tosca(*words, code=1)
    for field in ("backbone.name", "backbone.tag", "transform.normalize", "views.count"):
        assert f"{field}: asked for" in refused.output
    (line,) = [line for line in refused.output.splitlines() if "Train on it as it is: " in line]
    command = shlex.split(line.partition("as it is: ")[2])
    assert command[0] == "tosca" and "--views" not in command
    tosca(*command[1:], code=0)


def test_the_command_line_comes_before_a_store_that_is_named(place):
    words = ["--store", "cache/photos--toy", *QUICK]
    refused = tosca("train", *words, "--views", "8", "--backbone", "vit_nano", "--dataset", "leaves", code=1)
    for text in ('dataset.name: asked for "leaves"', "views.count: asked for 8, it has 3", "backbone.name: asked for"):
        assert text in refused.output
    tosca("train", *words, "--views", "3", "--backbone", "toy.toy.test", code=0)


def test_a_name_means_the_store_and_not_a_folder_that_is_called_like_it(place, make_store, monkeypatch):
    (place / "photos--toy").mkdir()
    for name in ("photos--toy", "photos"):
        tosca("cache", "info", name, code=0)
    tosca("train", "--dataset", "photos/", *QUICK, code=0)
    make_store(place / "cache" / "listed", dataset="photos.csv")  # a list stands for its name as a folder does
    (place / "lists").mkdir()
    (place / "lists" / "photos.csv").write_text("path,label\n")
    tosca("compare", "--dataset", "lists/photos.csv", *TABLE, code=0)
    monkeypatch.chdir(place / "cache")
    for path in (".", "..", "/", "./", "cache/.."):
        for words in (("info", path), ("verify", path)):
            assert "error: " in tosca("cache", *words, code=1).stderr
    assert (place / "cache" / "photos--toy").exists()


def test_a_path_that_is_no_utf8(place, make_store):
    odd = os.fsdecode(b"odd\xff")
    make_store(place / odd / "store")
    asked = ("--store", f"{odd}/store", "--runs", f"{odd}/runs")
    tosca("train", *asked, *QUICK, code=0)
    tosca("show", "last", "--runs", f"{odd}/runs", code=0)
    tosca("route", "last", "--runs", f"{odd}/runs", "--routers", "sample", code=0)
    tosca("compare", *asked, *TABLE, code=0)
