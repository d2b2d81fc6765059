"""Stores at a server that speaks S3, as a user meets them: extract, kill -9, go on elsewhere, train on a third machine."""

import json
import os
import signal

import pytest
from commands import Command, after_shards
from s3_server import environment, keys_in, make_bucket, s3_server
from typer.testing import CliRunner

from tosca_cache.cli.app import app
from tosca_cache.store import open_store


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


def done_shards(root):
    return {key for key in keys_in(root.split("/")[2]) if "/done/" in key}


def test_extract_kill_resume_elsewhere_and_train_on_a_third_machine(
    root, tiny_digits, undisturbed, files, tmp_path, monkeypatch
):
    command = Command(*tiny_digits, "--root", root, before=after_shards(2))
    command.wait_until(lambda: done_shards(root))
    assert command.kill() == -signal.SIGKILL

    monkeypatch.setenv("TOSCA_CACHE_HOME", str(tmp_path / "second"))
    result = run("cache", "ls", "--root", root, "--json")
    (found,) = json.loads(result.output)
    assert (found["state"], found["done_rows"] > 0) == ("unfinished", True)
    result = run("train", "--dataset", "digits", "--backbone", "test_vit", "--root", root)
    assert result.exit_code == 1
    assert "unfinished" in result.output
    assert root in result.output
    result = run(*tiny_digits, "--root", root)
    assert result.exit_code == 0, result.output
    assert "images are done already" in result.output
    name = found["name"].removesuffix(".partial")
    local = open_store(f"{root}/{name}").path
    assert {f"{name}/{file}": data for file, data in files(local).items()} == undisturbed

    monkeypatch.setenv("TOSCA_CACHE_HOME", str(tmp_path / "third"))
    monkeypatch.setenv("TOSCA_CACHE", root)
    result = run("train", "--dataset", "digits", "--backbone", "test_vit", "--epochs", "1", "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert f"store: {root}/digits--" in result.output
    assert list((tmp_path / "third").glob("*/digits--*/manifest.json"))
    result = run("cache", "info", f"{root}/{name}", "--json")
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
