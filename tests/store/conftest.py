"""Finished toy stores to look at, and no waiting for the disk but where a plug is pulled."""

from functools import cache

import pytest
from disk_waits import without_waiting
from scenes import SCENES
from toy_store import BAD, build
from trees import everything


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    without_waiting(monkeypatch)


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A finished store, shared by all tests, which must not change it."""
    with pytest.MonkeyPatch.context() as patch:
        without_waiting(patch)
        return build(tmp_path_factory.mktemp("cache") / "toy")


@pytest.fixture(scope="session")
def skipping(tmp_path_factory):
    """A finished store of which the rows `BAD` were skipped, shared by all tests, which must not change it."""
    with pytest.MonkeyPatch.context() as patch:
        without_waiting(patch)
        return build(tmp_path_factory.mktemp("cache") / "toy", bad=BAD)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """(scene) -> every file of a store that was made without interruption, with its bytes, provenance included."""

    @cache
    def make(name):
        with pytest.MonkeyPatch.context() as patch:
            without_waiting(patch)
            path = tmp_path_factory.mktemp("whole") / "s"
            SCENES[name].make(path)
        return everything(path)

    return make
