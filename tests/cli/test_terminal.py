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


def test_control_characters_become_escapes_and_a_console_takes_text_as_text(capsys):
    from rich.table import Table

    assert printable("a\x1b[31m\x9b\u202eb\n\tc") == "a\\u001b[31m\\u009b\\u202eb\n\tc"
    echo("\x1b]0;title\x07")
    assert capsys.readouterr().out == "\\u001b]0;title\\u0007\n"
    for name in NAMES:
        table = Table("a [b]", title=name, caption=name)
        table.add_row(name)
        make_console(width=200).print(table, name)
        shown = capsys.readouterr().out
        assert shown.count(printable(name)) == 4 or shown.count(printable(name).replace("\r", "")) == 4
        assert "\x1b" not in shown


def test_output_that_cannot_be_written_costs_no_run(make_store, tmp_path, monkeypatch, capsys):
    """A full device, and a reader that has enough."""
    command = ["train", "--store", str(make_store(tmp_path / "store").path), *QUICK, "--runs"]
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as ended:
            app([*command, str(tmp_path / "full")])
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("warning: standard output could not be written (No space")
    reading, writing = os.pipe()
    started = [sys.executable, str(LAUNCHER), *command, str(tmp_path / "closed")]
    process = subprocess.Popen(started, text=True, stderr=subprocess.PIPE, stdout=writing)
    os.close(writing)
    os.close(reading)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert err.count("warning: standard output could not be written") == 1 and "Traceback" not in err
    for runs in ("full", "closed"):
        assert (next((tmp_path / runs).iterdir()) / "metrics.json").exists()
