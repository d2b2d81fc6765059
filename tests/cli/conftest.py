"""A store of the digits that several files' commands are tried on, and a way to run a command."""

import pytest
from typer.testing import CliRunner

from tosca_cache.cli.app import app


@pytest.fixture(scope="session")
def digits_cache(tmp_path_factory):
    """The folder with a store of the digits, 1 view; never written to."""
    root = tmp_path_factory.mktemp("digits-cache")
    result = CliRunner().invoke(app, ["extract", "--dataset", "digits", "--views", "1", "--root", str(root)])
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def digits_place(digits_cache, tmp_path, monkeypatch):
    """An empty working directory; the store of the digits is found by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOSCA_CACHE", str(digits_cache))
    return tmp_path
