"""What is printed: names are text, and output that cannot be written costs no run."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import tosca

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


@pytest.mark.parametrize("name", ["[red]", ":smile:", "\u202egnp.exe", "$\\frac$ =1"])
def test_a_dataset_of_any_name_is_trained_on_and_shown(make_store, tmp_path, name):
    store = make_store(tmp_path / "store", dataset=name)
    runs = tmp_path / "runs"
    for command in (
        ["train", "--store", store.path, "--runs", runs, *QUICK],
        ["show", "--runs", runs],
        [
            "compare",
            "--store",
            store.path,
            "--runs",
            runs,
            "--methods",
            "simplecil",
            "--seeds",
            "1",
            "--increment",
            "3",
        ],
        ["cache", "info", store.path],
        ["cache", "ls", "--root", tmp_path],
        ["cache", "verify", store.path],
    ):
        result = tosca(*command)
        assert result.exit_code == 0, (command, result.output, result.exception)
        assert not set("\x1b\x9b\u202e\r") & set(result.output)


@pytest.mark.parametrize("name", ["../../x", "/abs/x", "..", "", "a/b", "a\0b", "a\x1b[31mb", "a\nb", "x" * 300])
def test_a_store_whose_dataset_is_no_name_leads_nowhere(make_store, tmp_path, name):
    """The digest of a manifest is no secret: anybody can seal what is false."""
    import json

    from tosca_cache.store.manifest import seal
    from tosca_cache.store.spec import canonical

    path = make_store(tmp_path / "cache" / "store").path
    body = json.loads((path / "manifest.json").read_text())
    body["fingerprint"]["dataset"]["name"] = name
    body["fingerprint_digest"] = hashlib.sha256(canonical(body["fingerprint"]).encode()).hexdigest()
    sealed = seal({key: value for key, value in body.items() if key not in ("digest", "format")})
    (path / "manifest.json").write_bytes(sealed)
    (path / "manifest.copy.json").write_bytes(sealed)
    before = sorted(tmp_path.rglob("*"))
    for command in (["train", *QUICK], ["sweep", "--set", "lr=0.1,0.2"], ["compare", "--methods", "simplecil"]):
        arguments = [*command, "--store", path, "--runs", tmp_path / "deep" / "er" / "runs"]
        result = tosca(*arguments, code=1)
        assert "dataset.name" in result.output
    assert "dataset.name" in tosca("cache", "verify", path).output
    assert sorted(tmp_path.rglob("*")) == before


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
