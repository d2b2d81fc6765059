"""A finished toy store to look at, and no waiting for the disk where a test does not pull its plug."""

import os

import pytest
from toy_store import build


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A finished store, shared by the tests of a module, which must not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        return build(tmp_path_factory.mktemp("cache") / "toy")
