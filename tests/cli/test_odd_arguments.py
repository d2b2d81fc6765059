"""Arguments that nobody means: every text and path that a command takes, far too long, and numbers far too large."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import ANY

import pytest
import typer
import write_cli_docs
from campaign import times
from commands import Command, tosca

from tosca_cache.cli.app import app
from tosca_cache.config.schema import KEYS
from tosca_cache.files import asked_file

# Settings are all checked in one way, whatever the command: these are the ones that have more to do with files.
SETTINGS = set(KEYS) - {"dataset", "backbone", "router", "class_order"}
PATHS = write_cli_docs.commands(typer.main.get_command(app))
LONG = "n" * 4400
TRAINING = ("train", "compare", "sweep")
LAUNCHER = str(Path(__file__).parents[2] / "cli.py")


def command_at(path):
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return command


@pytest.fixture
def place(shapes_place):
    return shapes_place


@pytest.mark.campaign
@pytest.mark.parametrize("path", [path for path in PATHS if path], ids=" ".join)
def test_far_too_long_texts_give_one_message(place, path):
    command = command_at(path)
    if command.callback is None:
        return
    needed = [parameter for parameter in command.params if parameter.required]
    asked = [p for p in command.params if not getattr(p, "is_flag", False)]
    asked = [p for p in asked if path[0] not in TRAINING or p.name not in SETTINGS]
    for parameter in asked[: times(4, 99)]:
        words = list(path)
        for other in needed:
            given = LONG if other is parameter else "shapes--toy"
            words += [given] if other.param_type_name == "argument" else [other.opts[0], given]
        if parameter not in needed:
            words += [LONG] if parameter.param_type_name == "argument" else [parameter.opts[0], LONG]
        for option, value in (("--dataset", "shapes"), ("--backbone", "vit_nano")):
            takes = any(option in other.opts for other in command.params)
            if takes and option not in words and (path[0] in TRAINING) == (option == "--dataset"):
                words += [option, value]
        result = tosca(*words)
        assert "Traceback" not in result.output
        assert result.exit_code in (0, 1, 2), (words[:3], result.output[:300])
    assert sorted(p.name for p in place.iterdir()) in (["cache"], ["cache", "runs"])


@pytest.mark.parametrize(
    "options",
    [
        ("--epochs", "100000000"),
        ("--epochs", str(10**18)),
        ("--epochs", "9" * 5000),
        ("--seed", "9" * 5000),
        ("--batch-size", str(10**18)),
        ("--increment", str(10**18)),
        ("--mlp-ratio", str(10**18)),
        ("--routing-batch-size", str(10**18)),
        ("--milestones", str(10**18)),
        ("--shots", str(10**18)),
    ],
    ids=lambda options: f"{options[0]} {options[1][:20]}",
)
def test_far_too_large_numbers_give_one_message(place, options):
    small = ("--epochs", "1") if options[0] != "--epochs" else ()
    increment = ("--increment", "3") if options[0] != "--increment" else ()
    result = tosca("train", "--dataset", "shapes", "--router", "sample", *small, *increment, *options)
    assert "Traceback" not in result.output
    if options[0] in ("--epochs", "--seed", "--increment", "--shots"):
        assert result.exit_code == 2, result.output
        assert not list(place.glob("runs/*"))
    if options == ("--epochs", "100000000"):
        assert "100000000 epochs" in result.output and "fewer epochs" in result.output


def test_a_question_that_nobody_can_answer(place):
    for stdin in (None, subprocess.DEVNULL):
        command = [sys.executable, LAUNCHER, "cache", "rm", "shapes--toy"]
        closing = ["sh", "-c", 'exec "$@" <&-', "sh", *command] if stdin is None else command
        done = subprocess.run(closing, stdin=stdin, capture_output=True, text=True, check=False)
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr
        assert ("add --yes" if stdin is None else "Aborted") in done.stderr
    assert (place / "cache" / "shapes--toy").exists()


# What was found by trying: each kind once.


@contextmanager
def bounded():
    """Within it nothing waits for ever."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(300)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("words", "suffix"),
    [
        (("train", "--dataset", "shapes", "--increment", "3", "--class-order"), ".txt"),
        (("train", "--dataset", "shapes", "--config"), ".toml"),
        (("train", "--dataset", "shapes", "--plugin"), ".py"),
        (("sweep", "show"), ".sqlite"),
        (("reproduce", "--expectation"), ".toml"),
        (("conformance",), ".npz"),
        (("extract", "--backbone", "vit_nano", "--dataset"), ".csv"),
        (("extract", "--dataset", "digits", "--backbone", "test_vit", "--weights"), ".safetensors"),
    ],
    ids=lambda found: found if isinstance(found, str) else " ".join(found),
)
def test_a_file_that_is_none_is_not_waited_for(place, words, suffix):
    os.mkfifo(place / f"pipe{suffix}")
    (place / f"folder{suffix}").mkdir()
    (place / f"deep{suffix}").write_text("x = " + "[" * 5000 + "]" * 5000)
    for name in ("pipe", "folder", "deep", "missing"):
        with bounded():
            result = tosca(*words, f"{name}{suffix}")
        assert result.exit_code in (1, 2) and "error: " in result.stderr, result.output
        assert f"{name}{suffix}" in result.stderr or name == "deep"  # which is a text, as a class order must be
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--dataset", "shapes", "--runs", ""),
        ("train", "--dataset", ""),
        ("train", "--dataset=", "shapes"),
        ("extract", "--dataset", "digits", "--root", ""),
        ("cache", "rm", "", "--yes"),
        ("show", ""),
        ("route", "last", "--routers", ""),
    ],
)
def test_an_empty_argument_is_that_of_a_variable_that_is_not_set(place, words):
    result = tosca(*words, code=2)
    assert "an argument is empty" in result.stderr
    assert [path.name for path in place.iterdir()] == ["cache"]


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for words in (("train", "--dataset", "digits"), ("cache", "ls")):
        result = tosca(*words, code=2)
        assert "working directory does not exist" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 1, "error: memory is not enough"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "error: memory is not enough"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=["python", "torch", "ctrl-c"],
)
def test_what_may_happen_to_any_command(place, monkeypatch, error, code, words):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("tosca_cache.runs.train.train_run", fails)
    result = tosca("train", "--dataset", "shapes", "--increment", "3")
    assert result.exit_code == code and words in result.stderr


def limit(number, most):
    """For `before`: the command may have files of so many bytes, or so many files open."""
    resource.setrlimit(number, (most, most))


@pytest.mark.parametrize(
    ("number", "most", "words"),
    [
        (resource.RLIMIT_FSIZE, 1000, ("allows no file as large as this", "ulimit -f")),
        (resource.RLIMIT_NOFILE, 9, ("may not have more files open", "ulimit -n")),
    ],
    ids=["size", "number"],
)
def test_limits_of_the_shell_are_named(place, number, most, words):
    command = Command(
        *("extract", "--dataset", "digits", "--views", "0", "--root", place / "limited"),
        before=partial(limit, number, most),
    )
    assert command.wait() == 1
    assert "error: " in command.error and all(word in command.error for word in words), command.error


COMPARISON = ("compare", "--dataset", "shapes", "--methods", "simplecil", "--seeds", "1", "--increment", "3")


def test_a_table_goes_through_links_and_into_pipes_and_replaces_neither(place):
    os.mkfifo(place / "pipe")
    (place / "real.csv").write_text("before")
    (place / "link.csv").symlink_to("real.csv")
    reading = os.open(place / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        for name in ("pipe", "link.csv"):
            with asked_file(place / name) as file:
                file.write("path,label\n")
        assert os.read(reading, 100_000) == b"path,label\n"
    finally:
        os.close(reading)
    assert (place / "pipe").is_fifo() and (place / "link.csv").is_symlink()
    assert (place / "real.csv").read_text() == "path,label\n"


@pytest.mark.parametrize("path", [".", "..", "/", "./", "cache/.."])
def test_folders_without_a_name_are_no_stores(place, monkeypatch, path):
    monkeypatch.chdir(place / "cache")
    for words in (("rm", path, "--yes"), ("info", path), ("verify", path)):
        result = tosca("cache", *words, code=1)
        assert "error: " in result.stderr, result.output
    assert (place / "cache" / "shapes--toy").exists()


def test_a_name_means_the_store_and_not_a_folder_that_is_called_like_it(place):
    (place / "shapes--toy").mkdir()
    (place / "shapes").mkdir()
    for name in ("shapes--toy", "shapes"):
        tosca("cache", "info", name, code=0)
    tosca("train", "--dataset", "shapes/", "--increment", "3", "--epochs", "1", code=0)


def test_a_list_stands_for_its_name_as_a_folder_does(place, make_store):
    make_store(place / "cache" / "photos", dataset="photos.csv")
    (place / "lists").mkdir()
    (place / "lists" / "photos.csv").write_text("path,label\n")
    for verb in ("train", "compare"):
        more = ("--epochs", "1") if verb == "train" else COMPARISON[3:7]
        tosca(verb, "--dataset", "lists/photos.csv", "--increment", "3", *more, code=0)


def test_a_path_that_is_no_utf8(place, make_store):
    odd = os.fsdecode(b"odd\xff")
    make_store(place / odd / "store")
    asked = ("--store", f"{odd}/store", "--increment", "3", "--runs", f"{odd}/runs")
    tosca("train", *asked, "--epochs", "1", code=0)
    tosca("show", "last", "--runs", f"{odd}/runs", code=0)
    tosca("route", "last", "--runs", f"{odd}/runs", "--routers", "sample", code=0)
    tosca("compare", *asked, "--methods", "simplecil", "--seeds", "1", "--format", "markdown", code=0)


def test_lists_for_programs(place):
    assert json.loads(tosca("show", "--json").stdout) == []
    for _ in range(2):
        tosca("train", "--dataset", "shapes", "--increment", "3", "--epochs", "1")
    first, last = json.loads(tosca("show", "--json").stdout)
    (place / "runs" / last["run"] / "metrics.json").write_text("{}")
    assert json.loads(tosca("show", "--json").stdout) == [first, {"run": last["run"], "problem": ANY}]
    assert (first["dataset"], first["seeds"]) == ("shapes", 1) and 0 <= first["last_accuracy"] <= 100
    ledger = ("--ledger", "l.sqlite", "--set", "lr=0.1,0.2", "--set", "epochs=1", "--set", "increment=3")
    tosca("sweep", "--dataset", "shapes", *ledger, "--report-seeds", "1")
    for wrong in (("--csv", "--json"), ("--top", "-1")):
        tosca("sweep", "show", "l.sqlite", *wrong, code=2)
