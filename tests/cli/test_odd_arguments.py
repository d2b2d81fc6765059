"""Arguments that nobody means: every text and path that a command takes, far too long, and numbers far too large."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
import write_cli_docs
from campaign import times
from typer.testing import CliRunner

from tosca_cache.cli.app import app
from tosca_cache.config.schema import KEYS

# Settings are all checked in one way, whatever the command: these are the ones that have more to do with files.
SETTINGS = set(KEYS) - {"dataset", "backbone", "router", "class_order"}
PATHS = write_cli_docs.commands(typer.main.get_command(app))
LONG = "n" * 4400
TRAINING = ("train", "compare", "sweep")
LAUNCHER = str(Path(__file__).parents[2] / "cli.py")


def run(*words):
    result = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "160"})
    assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
    return result


def command_at(path):
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return command


@pytest.fixture
def place(tmp_path, monkeypatch, make_store):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    make_store(tmp_path / "cache" / "shapes--toy")
    return tmp_path


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
        result = run(*words)
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
    result = run("train", "--dataset", "shapes", "--router", "sample", *small, *increment, *options)
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
