"""What is printed: names are text, and output that cannot be written costs no run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tosca_cache.cli.app import app
from tosca_cache.terminal import echo, make_console
from tosca_cache.text import printable

LAUNCHER = Path(__file__).parents[2] / "cli.py"
NAMES = ["[/x]", "[red]", ":smile:", "\x1b[31mred", "a\x9bb", "\u202egnp.exe", "two\rlines", "a\ud800b"]
QUICK = ("--epochs", "1", "--increment", "3", "--router", "sample")


def test_control_characters_become_escapes_that_json_reads(capsys):
    assert printable("a\x1b[31m\x9b\u202eb\n\tc") == "a\\u001b[31m\\u009b\\u202eb\n\tc"
    echo("\x1b]0;title\x07")
    assert capsys.readouterr().out == "\\u001b]0;title\\u0007\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_console_takes_text_as_text(capsys, name):
    from rich.table import Table

    table = Table("a [b]", title=name, caption=name)
    table.add_row(name)
    make_console(width=200).print(table, name)
    shown = capsys.readouterr().out
    assert shown.count(printable(name)) == 4 or shown.count(printable(name).replace("\r", "")) == 4
    assert "\x1b" not in shown


def test_a_full_device_costs_no_run(make_store, tmp_path, monkeypatch, capsys):
    store = make_store(tmp_path / "store")
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as ended:
            app(["train", "--store", str(store.path), "--runs", str(tmp_path / "runs"), *QUICK])
    assert ended.value.code == 1
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("warning: standard output could not be written (No space")
    )
    assert (next((tmp_path / "runs").iterdir()) / "metrics.json").exists()


def test_a_reader_that_has_enough_costs_no_run(make_store, tmp_path):
    store = make_store(tmp_path / "store")
    reading, writing = os.pipe()
    command = [sys.executable, LAUNCHER, "train", "--store", store.path, "--runs", tmp_path / "runs", *QUICK]
    process = subprocess.Popen([*map(str, command)], text=True, stderr=subprocess.PIPE, stdout=writing)
    os.close(writing)
    os.close(reading)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert err.count("warning: standard output could not be written") == 1 and "Traceback" not in err
    assert (next((tmp_path / "runs").iterdir()) / "metrics.json").exists()
