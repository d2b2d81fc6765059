"""Stores at a server that speaks S3, as a user meets them: extract, kill -9, go on elsewhere, train on a third machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_server import environment, keys_in, make_bucket, s3_server
from typer.testing import CliRunner

from tosca_cache.cli.app import app
from tosca_cache.store import open_store

LAUNCHER = str(Path(__file__).parents[2] / "cli.py")
EXTRACT = ["extract", "--dataset", "digits", "--views", "1"]


@pytest.fixture(scope="module")
def server():
    with s3_server() as address:
        yield address


@pytest.fixture
def root(server, tmp_path, monkeypatch):
    """The address of an empty root."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TOSCA_CACHE_HOME", str(tmp_path / "first"))
    monkeypatch.chdir(tmp_path)
    bucket = f"digits-{os.getpid()}"
    make_bucket(bucket)
    return f"s3://{bucket}/lab/stores"


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def files(path):
    found = (file for file in path.rglob("*") if file.is_file() and file.name != "provenance.json")
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


def done_shards(root):
    return {key for key in keys_in(root.split("/")[2]) if "/done/" in key}


def test_extract_kill_resume_elsewhere_and_train_on_a_third_machine(root, digits_cache, tmp_path, monkeypatch):
    process = subprocess.Popen(
        [sys.executable, LAUNCHER, *EXTRACT, "--root", root], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not done_shards(root):
        assert process.poll() is None, "it was over before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    listed = done_shards(root)

    monkeypatch.setenv("TOSCA_CACHE_HOME", str(tmp_path / "second"))
    result = run("cache", "ls", "--root", root, "--json")
    (found,) = json.loads(result.output)
    assert (found["state"], found["done_rows"] > 0) == ("unfinished", True)
    result = run("train", "--dataset", "digits", "--root", root)
    assert result.exit_code == 1
    assert "unfinished" in result.output
    assert root in result.output
    result = run(*EXTRACT, "--root", root)
    assert result.exit_code == 0, result.output
    assert "images are done already" in result.output
    assert len(listed) > 0
    (local,) = (path for path in digits_cache.iterdir() if not path.name.startswith("."))
    assert files(open_store(f"{root}/{local.name}").path) == files(local)

    monkeypatch.setenv("TOSCA_CACHE_HOME", str(tmp_path / "third"))
    monkeypatch.setenv("TOSCA_CACHE", root)
    result = run("train", "--dataset", "digits", "--epochs", "1", "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert f"store: {root}/digits--" in result.output
    assert list((tmp_path / "third").glob("*/digits--*/manifest.json"))
    result = run("cache", "info", f"{root}/{local.name}", "--json")
    assert json.loads(result.output)["state"] == "finished"
    assert f"at {root}: " in run("cache", "du").output
    assert "removed" in run("cache", "rm", "digits", "--yes").output
    assert keys_in(root.split("/")[2]) == []
    assert f"There are no stores in {root}" in run("cache", "ls").output


@pytest.mark.parametrize(
    "verb", [("cache", "ls"), ("extract", "--dataset", "digits"), ("train", "--dataset", "digits")]
)
def test_useless_addresses_are_refused_without_a_traceback(verb):
    result = run(*verb, "--root", "ftp://somewhere/else")
    assert result.exit_code == 2
    assert "ftp://" in result.output
    assert "Traceback" not in result.output


def test_file_addresses_are_paths(tmp_path):
    result = run("cache", "ls", "--root", f"file://{tmp_path}")
    assert result.exit_code == 0
    assert f"There are no stores in {tmp_path}" in result.output
