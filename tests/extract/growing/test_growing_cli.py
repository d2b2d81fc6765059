"""Growing as a user meets it: what the commands say, and training on what comes out."""

import json
from pathlib import Path

import pytest
from growing_help import draw
from typer.testing import CliRunner

from tosca_cache.cli.app import app
from tosca_cache.extract.options import ExtractOptions
from tosca_cache.extract.request import ExtractRequest, command


@pytest.fixture
def tosca(old, tiny_weights, tmp_path):
    """Runs a verb on the root of this test, `extract` with the tiny model; returns what it printed."""
    model = ["--dataset", old.root, "--backbone", "test_vit", "--weights", tiny_weights, "--img-size", 32]

    def run(verb, *arguments):
        words = [*verb.split(), *(model if verb == "extract" else []), "--root", tmp_path / "cache", *arguments]
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    return run


def path_in(output):
    return Path(output.splitlines()[-1].removeprefix("store: "))


def test_a_store_grows_and_is_trained_on(tosca, old, tmp_path):
    first = path_in(tosca("extract", "--views", 1, "--precision", "fp32"))
    for split in ("train", "test"):
        for number in range(2):
            draw(Path(old.root, split, "class 3", f"{number}.png"), seed=number)
    said = tosca("extract", "--views", 2, "--precision", "fp32")
    assert f"taken from {first.name}: 39 views of 24 images\nleft to compute: 23 views of 19 images" in said
    found = json.loads(tosca("cache info", path_in(said).name, "--json"))
    assert [(entry["name"], entry["views"]) for entry in found["provenance"]["reused"]] == [(first.name, 39)]
    assert found["numerics"]["reused"] == [found["provenance"]["reused"][0]["store"]]
    assert first.name in "".join(tosca("cache info", path_in(said).name).split("│")).replace("\n", "").replace(" ", "")
    runs = ["--runs", tmp_path / "runs", "--increment", 2, "--epochs", 1]
    result = CliRunner().invoke(app, [str(word) for word in ["train", "--store", path_in(said), *runs]])
    assert result.exit_code == 0, result.output


def test_no_reuse(tosca):
    tosca("extract", "--views", 1)
    said = tosca("extract", "--views", 2, "--no-reuse")
    assert "taken from" not in said and "left to compute" not in said
    found = json.loads(tosca("cache info", path_in(said).name, "--json"))
    assert "reused" not in found["provenance"] and "reused" not in found["numerics"]


def test_the_command_of_a_request_says_so():
    asked = ExtractRequest("digits", Path("cache"), options=ExtractOptions(reuse=False, views=3))
    assert command(asked) == "tosca extract --dataset digits --root cache --views 3 --no-reuse"
