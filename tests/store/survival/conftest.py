"""What an uninterrupted run makes of each scene."""

from functools import cache

import pytest
from disk_waits import without_waiting
from scenes import SCENES
from trees import everything


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """(scene) -> every file of the store with its bytes, provenance included; made when it is first asked for."""

    @cache
    def make(name):
        with pytest.MonkeyPatch.context() as patch:
            without_waiting(patch)
            path = tmp_path_factory.mktemp("whole") / "s"
            SCENES[name].make(path)
        return everything(path)

    return make
