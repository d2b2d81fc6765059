"""Arguments that nobody means: every text and path that a command takes, far too long, and numbers far too large."""

import os
import resource
from functools import partial

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


@pytest.mark.campaign
@pytest.mark.parametrize("path", [path for path in PATHS if path], ids=" ".join)
def test_far_too_long_texts_give_one_message(shapes_place, path):
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
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
        assert result.exit_code in (0, 1, 2), (words[:3], result.output[:300])
    assert sorted(p.name for p in shapes_place.iterdir()) in (["cache"], ["cache", "runs"])


@pytest.mark.parametrize("name", ["epochs", "seed", "increment", "shots", "batch-size", "mlp-ratio", "milestones"])
def test_far_too_large_numbers_give_one_message(shapes_place, name):
    for number in ("1" + "0" * 18, "9" * 5000) if name in ("epochs", "seed") else ("1" + "0" * 18,):
        asked = {"--epochs": "1", "--increment": "3"} | {f"--{name}": number}
        result = tosca("train", "--dataset", "shapes", *(word for pair in asked.items() for word in pair))
        if name in ("epochs", "seed", "increment", "shots"):
            assert result.exit_code == 2 and not list(shapes_place.glob("runs/*")), result.output
    if name == "epochs":
        said = tosca("train", "--dataset", "shapes", "--increment", "3", "--epochs", "100000000", code=2).output
        assert "100000000 epochs" in said and "fewer epochs" in said


@pytest.mark.parametrize(
    ("words", "suffix"),
    [
        (("train", "--dataset", "shapes", "--increment", "3", "--class-order"), ".txt"),
        (("train", "--dataset", "shapes", "--config"), ".toml"),
        (("train", "--dataset", "shapes", "--plugin"), ".py"),
        (("report",), ".sqlite"),
        (("reproduce", "--expectation"), ".toml"),
        (("conformance",), ".npz"),
        (("extract", "--backbone", "vit_nano", "--dataset"), ".csv"),
        (("extract", "--dataset", "digits", "--backbone", "test_vit", "--weights"), ".safetensors"),
    ],
    ids=lambda found: found if isinstance(found, str) else " ".join(found),
)
def test_a_file_that_is_none_is_not_waited_for(shapes_place, words, suffix):
    os.mkfifo(shapes_place / f"pipe{suffix}")
    (shapes_place / f"folder{suffix}").mkdir()
    (shapes_place / f"deep{suffix}").write_text("x = " + "[" * 5000 + "]" * 5000)
    for name in ("pipe", "folder", "deep", "missing"):
        result = tosca(*words, f"{name}{suffix}")
        assert result.exit_code in (1, 2) and "error: " in result.stderr, result.output
        assert f"{name}{suffix}" in result.stderr or name == "deep"  # which is a text, as a class order must be
    assert not (shapes_place / "runs").exists()


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "working directory does not exist" in tosca("cache", "ls", code=2).stderr


def test_what_may_happen_to_any_command(shapes_place, monkeypatch):
    for error, code, words in (
        (MemoryError(), 1, "error: memory is not enough"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "error: memory is not enough"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ):

        def fails(*_, error=error, **__):
            raise error

        monkeypatch.setattr("tosca_cache.runs.train.train_run", fails)
        assert words in tosca("train", "--dataset", "shapes", "--increment", "3", code=code).stderr


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
def test_limits_of_the_shell_are_named(shapes_place, number, most, words):
    asked = ("extract", "--dataset", "digits", "--views", "0", "--root", shapes_place / "limited")
    command = Command(*asked, before=partial(limit, number, most))
    assert command.wait() == 1
    assert "error: " in command.error and all(word in command.error for word in words), command.error


def test_a_file_that_is_asked_for_goes_through_links_and_into_pipes_and_replaces_neither(shapes_place):
    os.mkfifo(shapes_place / "pipe")
    (shapes_place / "real.csv").write_text("before")
    (shapes_place / "link.csv").symlink_to("real.csv")
    reading = os.open(shapes_place / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        for name in ("pipe", "link.csv"):
            with asked_file(shapes_place / name) as file:
                file.write("path,label\n")
        assert os.read(reading, 100_000) == b"path,label\n"
    finally:
        os.close(reading)
    assert (shapes_place / "pipe").is_fifo() and (shapes_place / "link.csv").is_symlink()
    assert (shapes_place / "real.csv").read_text() == "path,label\n"
