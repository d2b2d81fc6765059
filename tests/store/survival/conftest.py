"""What an uninterrupted run makes of each scene."""

import pytest
from disk_waits import without_waiting
from scenes import SCENES
from trees import everything


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Scene -> every file of the store with its bytes, provenance included."""

    class Whole(dict):
        """Made when it is first asked for."""

        def __missing__(self, name):
            path = tmp_path_factory.mktemp("whole") / "s"
            with pytest.MonkeyPatch.context() as patch:
                without_waiting(patch)
                SCENES[name].make(path)
            self[name] = everything(path)
            return self[name]

    return Whole()
