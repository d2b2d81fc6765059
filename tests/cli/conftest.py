"""Plugins of a user, and what extraction is tried on: digits and a folder of images, through a tiny model of timm."""

import sys
from functools import partial

import pytest
from commands import tosca
from photos import make_splits
from trees import tree

from tosca_cache.learners import LEARNERS
from tosca_cache.routing import ROUTERS


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
    """The files that `tiny_digits` makes when nothing happens to it, as `tree` reads them."""

    return tree(made_once("tiny-digits", lambda folder: tosca(*tiny_digits, "--root", folder, code=0)))


@pytest.fixture(scope="session")
def make_folder():
    """Makes DATASET/SPLIT/CLASS of 3 different images of two classes in each split: (path) -> path."""
    return partial(make_splits, count=3)


@pytest.fixture
def plugins(tmp_path):
    """Writes a user's file, (text, name) -> path, and forgets what was read before; all is forgotten after the test."""
    kept = [(registry, dict(registry)) for registry in (LEARNERS, ROUTERS)]

    def forget():
        for registry, before in kept:
            registry.clear()
            registry.update(before)
        for name in [name for name in sys.modules if name.startswith("tosca_plugin_")]:
            del sys.modules[name]

    def write(text, name="mine.py"):
        forget()
        (tmp_path / name).write_text(text)
        return tmp_path / name

    yield write
    forget()
