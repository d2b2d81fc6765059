"""Finished stores to look at, and no waiting for the disk but where a plug is pulled."""

from functools import cache

import pytest
from disk_waits import without_waiting
from toy_store import BAD, SCENES, build, make

from tosca_cache.store import open_store


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    without_waiting(monkeypatch)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """(scene, or `toy`, or `skipping`: the toy store without the rows `BAD`) -> a finished store that nobody may change."""

    @cache
    def whole(name):
        path = tmp_path_factory.mktemp(name) / "s"
        with pytest.MonkeyPatch.context() as patch:
            without_waiting(patch)
            make(name, path) if name in SCENES else build(path, bad=BAD if name == "skipping" else ())
        return open_store(path)

    return whole


@pytest.fixture(scope="session")
def toy(whole):
    return whole("toy")
