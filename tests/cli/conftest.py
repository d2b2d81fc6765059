"""A small store that extraction is tried on: the digits through a tiny model of timm with random weights."""

import pytest
from commands import tosca


@pytest.fixture(scope="session")
def tiny(tiny_weights):
    """Options of the tiny model at 32 pixels."""
    return ["--backbone", "test_vit", "--weights", str(tiny_weights), "--img-size", "32"]


@pytest.fixture(scope="session")
def tiny_digits(tiny):
    """The command that extracts the digits through the tiny model, in 8 shards, but for its --root."""
    return ["extract", "--dataset", "digits", *tiny, "--views", "2", "--batch-size", "24"]


@pytest.fixture(scope="session")
def undisturbed(made_once, tiny_digits):
    """The files that `tiny_digits` makes when nothing happens to it, as `files_below` reads them."""

    return files_below(made_once("tiny-digits", lambda folder: tosca(*tiny_digits, "--root", folder, code=0)))


def files_below(root):
    """Every file below a root with its bytes, but for those that say when and by whom a store was made."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name != "provenance.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


@pytest.fixture(scope="session")
def files():
    return files_below
